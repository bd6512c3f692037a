// What is chosen, asked and shown. Everything else is in a module of its own.
import { call } from "./api.js";
import { Capture, openCamera } from "./capture.js";
import { clearCounters, showSplit, showState } from "./counters.js";
import { Link } from "./socket.js";
import { StandingList } from "./standing.js";
import { Talk } from "./talk.js";
import { setCited, setRange } from "./timeline.js";
import { setDims, setMode, setRatio, showFrame } from "./view.js";

const $ = (id) => document.getElementById(id);
const video = $("video");
const now = () => performance.now() / 1000;
const KNOWN = 4000; // frames of a file whose place in it is remembered

const page = {
  server: null, // what /api/streams says
  link: null,
  capture: null,
  kind: "", // camera, file, stream
  begun: 0, // this page's clock at the stream's second 0
  sent: [], // [stream's second, file's second], of a file
  key: secret(),
  asks: 0,
  paused: false,
  last: 0,
};

const talk = new Talk({ jump, cancel: (id) => page.link?.say({ type: "cancel", id }) });
const standing = new StandingList({
  drop: (number) => page.link?.say({ type: "drop", number }),
  fired: (entry) => talk.fired(entry),
});

function secret() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

async function refresh() {
  page.server = await call("GET", "/api/streams");
  $("model").textContent = page.server.model;
  const chosen = $("stream").value;
  const streams = page.server.streams.filter((s) => s.kind !== "pushed" || s.name === chosen);
  $("stream").replaceChildren(...streams.map((s) => new Option(`${s.name} (${s.state})`, s.name)));
  if (streams.some((s) => s.name === chosen)) $("stream").value = chosen;
  return streams;
}

function leave() {
  page.capture?.end();
  page.link?.end();
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
  if (video.src) URL.revokeObjectURL(video.src);
  video.removeAttribute("src");
  video.controls = false;
  Object.assign(page, { capture: null, link: null, kind: "", sent: [], paused: false, last: 0 });
  clearCounters();
  talk.past();
  standing.clear();
  setCited([]);
  setRange(0, 0);
  for (const id of ["pause", "stop"]) $(id).disabled = true;
  press("");
}

function press(kind) {
  for (const one of ["camera", "file", "stream"]) $(`use-${one}`).setAttribute("aria-pressed", String(one === kind));
  $("stream-choice").hidden = kind !== "stream";
  if (kind !== "stream") openForm(false);
}

function openForm(open) {
  $("new-stream").hidden = !open;
  $("open-form").setAttribute("aria-expanded", String(open));
}

function connect(name, kind) {
  page.kind = kind;
  press(kind);
  page.link = new Link(name, {
    on: hear,
    state: (word, text) => {
      $("link").dataset.state = word;
      $("link").textContent = text;
      if (word === "wait") talk.lost();
    },
    begin: (link) => link.say(kind === "stream" ? { type: "watch", pictures: true } : { type: "push", key: page.key }),
  });
  for (const id of ["pause", "stop"]) $(id).disabled = false;
}

function hear(message) {
  const does = {
    hello: () => {
      if (message.stream) page.begun = now() - message.now;
    },
    shown: () => showFrame(message),
    standing: () => standing.show(message.list),
    text: () => talk.text(message.id, message.text),
    failed: () => talk.failed(message.id, message.message),
    refused: () => {
      $("ask-error").textContent = message.message;
      if (message.code === "too_many_streams" || message.code === "stream_taken") stop(message.message);
    },
    closed: () => stop("The stream was closed on the server."),
    answer: () => {
      talk.answer(message);
      showSplit(message.seconds);
    },
    state: () => {
      page.paused = message.paused;
      page.last = message.last ?? 0;
      $("pause").textContent = message.paused ? "Go on" : "Pause";
      $("pause").setAttribute("aria-pressed", String(message.paused));
      if (page.capture) page.capture.paused = message.paused;
      showState(message, page.capture?.skipped ?? 0);
      setRange(message.first, message.last);
      if (page.kind === "stream") {
        const words = { live: "live", ended: "ended, it can still be asked", connecting: "connecting", retrying: "lost, trying again", failed: "failed", closed: "closed" };
        const why = message.reason && message.state !== "live" ? `: ${message.reason}` : "";
        $("link").textContent = `${words[message.state]}${why}`;
        $("link").dataset.state = message.state === "live" || message.state === "ended" ? "on" : "wait";
      }
    },
  };
  does[message.type]?.();
}

function stop(why) {
  leave();
  setMode("none", why, "Start the camera");
  $("empty-go").onclick = useCamera;
}

function begin(kind) {
  page.capture = new Capture(video, page.server.fps, {
    late: () => (page.link?.ready ? page.link.behind : Infinity),
    send: (blob, at) => {
      if (!page.link?.say(blob) || kind !== "file") return;
      page.sent.push([now() - page.begun, at]);
      if (page.sent.length > KNOWN) page.sent = page.sent.filter((_, i) => i % 2);
    },
  });
  connect(`${kind}-${secret().slice(0, 8)}`, kind);
}

async function useCamera() {
  leave();
  press("camera");
  setMode("none", "Waiting for the camera. The browser may ask whether this page may use it.");
  try {
    await refresh();
    const stream = await openCamera();
    setMode("video");
    video.srcObject = stream;
    await video.play();
    begin("camera");
  } catch (error) {
    stop(error.message);
  }
}

async function useFile(file) {
  leave();
  press("file");
  try {
    await refresh();
    setMode("video");
    video.src = URL.createObjectURL(file);
    video.controls = true;
    await video.play();
    begin("file");
  } catch (error) {
    stop(error.name === "NotSupportedError" ? "The browser cannot play this file. MP4 and WebM mostly work." : error.message);
  }
}

async function useStream(name) {
  leave();
  press("stream");
  try {
    const streams = await refresh();
    const wanted = streams.find((s) => s.name === name) ?? streams[0];
    if (!wanted) {
      setMode("none", "No stream is open. Open one by its address, or start the server with --source.", "Open a stream");
      $("empty-go").onclick = () => openForm(true);
      press("stream");
      return;
    }
    $("stream").value = wanted.name;
    setMode("picture");
    connect(wanted.name, "stream");
  } catch (error) {
    stop(error.message);
  }
}

/** To a second of the stream: in a file the video goes there; else a picture of then. */
async function jump(seconds) {
  if (page.kind === "file" && page.sent.length) {
    const near = page.sent.reduce((a, b) => (Math.abs(b[0] - seconds) < Math.abs(a[0] - seconds) ? b : a));
    video.currentTime = near[1];
    return null;
  }
  const path = `/api/streams/${encodeURIComponent(page.link?.name ?? "")}/thumbnail?at=${seconds}`;
  const answer = await fetch(path, { credentials: "same-origin" }).catch(() => null);
  if (!answer?.ok) return { message: "There is no picture of then any more." };
  const src = await new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    answer.blob().then((blob) => reader.readAsDataURL(blob));
  });
  return { src, seconds: Number(answer.headers.get("X-Seconds")) };
}

function options() {
  return $("options").value.split(",").map((o) => o.trim()).filter(Boolean);
}

function said() {
  const text = $("question").value.trim();
  $("ask-error").textContent = "";
  if (!page.link?.ready) {
    $("ask-error").textContent = "Nothing is watched yet. Start the camera, or choose a file or a stream.";
    return "";
  }
  if (!text) $("ask-error").textContent = "Write a question first.";
  return text;
}

$("ask").onsubmit = (event) => {
  event.preventDefault();
  const text = said();
  if (!text) return;
  page.asks += 1;
  const id = `q${page.asks}`;
  talk.ask(id, text, Math.max(0, now() - page.begun));
  page.link.say({ type: "ask", id, text, options: options() });
};
$("question").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
};
$("stand").onclick = () => {
  const text = said();
  if (text) page.link.say({ type: "stand", text, options: options(), fires: options().length ? $("fires").value : "" });
};
$("options").oninput = () => {
  const chosen = $("fires").value;
  $("fires").replaceChildren(...options().map((o) => new Option(o, o)));
  if (options().includes(chosen)) $("fires").value = chosen;
  $("fires-label").hidden = !options().length;
};
$("pause").onclick = () => page.link?.say({ type: "pause", on: !page.paused });
$("stop").onclick = () => stop("Stopped. What was shown is forgotten once its time is up.");
$("show-kept").onchange = (event) => setDims(event.target.checked);
$("use-camera").onclick = useCamera;
$("use-file").onclick = () => $("file").click();
$("file").onchange = (event) => {
  if (event.target.files[0]) useFile(event.target.files[0]);
  event.target.value = "";
};
$("use-stream").onclick = () => useStream($("stream").value);
$("stream").onchange = () => useStream($("stream").value);
$("open-form").onclick = () => openForm($("new-stream").hidden);
$("new-stream").onsubmit = async (event) => {
  event.preventDefault();
  const form = event.target;
  try {
    const made = await call("POST", "/api/streams", { name: form.elements.name.value.trim(), url: form.elements.url.value.trim() });
    $("new-stream-error").textContent = "";
    form.reset();
    openForm(false);
    await useStream(made.name);
  } catch (error) {
    $("new-stream-error").textContent = error.message;
  }
};
video.onloadedmetadata = () => setRatio(video.videoWidth, video.videoHeight);

async function start() {
  setMode("none", "Let a camera, a file or a stream be watched, then ask about it. Frames stay in memory and are never written to disk.", "Start the camera");
  $("empty-go").onclick = useCamera;
  try {
    const streams = await refresh();
    if (streams.length) await useStream(streams[0].name);
  } catch (error) {
    setMode("none", error.message, "Try again");
    $("empty-go").onclick = start;
  }
}
start();
