// The picture with what is left of it: patches that were merged into others or dropped are dimmed, kept ones have an edge.
const figure = document.getElementById("view");
const overlay = document.getElementById("overlay");
const caption = document.getElementById("caption");
const picture = document.getElementById("picture");
const video = document.getElementById("video");
const empty = document.getElementById("empty");
const VEIL = "rgba(6, 10, 8, 0.66)";
const EDGE = "rgba(95, 224, 183, 0.9)";
let shown = null;
let dims = true;

/** mode: none, video (camera or file of this browser) or picture (frames that the server sends). */
export function setMode(mode, text = "", button = "") {
  figure.dataset.mode = mode;
  video.hidden = mode !== "video";
  picture.hidden = mode !== "picture";
  empty.hidden = mode !== "none";
  document.getElementById("empty-text").textContent = text;
  const go = document.getElementById("empty-go");
  go.textContent = button;
  go.hidden = !button;
  shown = null;
  if (mode === "none") setRatio(16, 10);
  draw();
}

export function setRatio(width, height) {
  if (!width || !height) return;
  figure.style.setProperty("--ratio", `${width} / ${height}`);
  figure.style.setProperty("--wide", String(width / height));
  draw();
}

export function setDims(on) {
  dims = on;
  draw();
}

export function showFrame(frame) {
  shown = frame;
  if (frame.picture && !picture.hidden) {
    picture.onload = () => setRatio(picture.naturalWidth, picture.naturalHeight);
    picture.src = frame.picture;
  }
  draw();
}

function draw() {
  const { width, height } = figure.getBoundingClientRect();
  const dense = window.devicePixelRatio || 1;
  overlay.width = Math.round(width * dense);
  overlay.height = Math.round(height * dense);
  const pen = overlay.getContext("2d");
  if (!shown || figure.dataset.mode === "none") {
    caption.textContent = "";
    return;
  }
  const still = shown.new ? "" : ", nothing new";
  caption.textContent = shown.dense
    ? `${shown.tokens} of ${shown.dense} tokens kept${still}`
    : "the first time step is not whole yet";
  if (!shown.grid || !dims) return;
  const [rows, columns] = shown.grid;
  const kept = new Set(shown.kept);
  const [w, h] = [overlay.width / columns, overlay.height / rows];
  const gap = Math.max(1, dense);
  pen.lineWidth = Math.max(1, dense * 1.25);
  for (let place = 0; place < rows * columns; place += 1) {
    const [x, y] = [(place % columns) * w, Math.floor(place / columns) * h];
    if (kept.has(place)) {
      pen.strokeStyle = EDGE;
      pen.strokeRect(x + gap, y + gap, w - 2 * gap, h - 2 * gap);
    } else {
      pen.fillStyle = VEIL;
      pen.fillRect(x, y, w, h);
    }
  }
}

new ResizeObserver(draw).observe(figure);

const patches = document.querySelector(".patches");
for (let i = 0; i < 24; i += 1) {
  const patch = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const [x, y] = [(i % 6) * 16 + 1, Math.floor(i / 6) * 16 + 1];
  for (const [name, value] of Object.entries({ x, y, width: 14, height: 14, rx: 3 })) patch.setAttribute(name, value);
  if ([3, 8, 9, 14, 15, 19].includes(i)) patch.classList.add("on");
  patches.append(patch);
}
