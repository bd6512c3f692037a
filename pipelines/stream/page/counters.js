// Plain numbers about the stream and the last answer.
import { size, toFirstToken, took } from "./times.js";

const list = document.getElementById("counters");
const STAGES = ["queue", "encode", "prefill", "generate"];
const cells = new Map();

function cell(name, html) {
  let dd = cells.get(name);
  if (!dd) {
    const div = document.createElement("div");
    const dt = document.createElement("dt");
    dt.textContent = name;
    dd = document.createElement("dd");
    div.append(dt, dd);
    list.append(div);
    cells.set(name, dd);
  }
  dd.replaceChildren(...html);
}

function small(text) {
  const part = document.createElement("small");
  part.textContent = text;
  return part;
}

/** state: of the server. skipped: frames that this page did not send. */
export function showState(state, skipped) {
  cell("frames / s", [state.fps.toFixed(1)]);
  cell("dropped", [String(state.dropped + skipped)]);
  cell("nothing new", [String(state.still)]);
  cell("broken", [String(state.broken)]);
  cell("tokens held", [state.tokens.toLocaleString("en"), small(` / ${state.max_tokens.toLocaleString("en")}`)]);
  cell("bytes held", [size(state.bytes)]);
}

/** seconds: of the last answer by stage. */
export function showSplit(seconds) {
  let div = list.querySelector(".split");
  if (!div) {
    div = document.createElement("div");
    div.className = "split";
    list.append(div);
  }
  const dt = document.createElement("dt");
  dt.textContent = `last answer: first token after ${took(toFirstToken(seconds))}`;
  const bars = document.createElement("div");
  bars.className = "bars";
  const words = document.createElement("dd");
  for (const stage of STAGES) {
    const bar = document.createElement("i");
    bar.style.flexGrow = String(Math.max(0.001, seconds[stage] ?? 0));
    bars.append(bar);
  }
  words.textContent = STAGES.map((stage) => `${stage} ${took(seconds[stage] ?? 0)}`).join("  ·  ");
  div.replaceChildren(dt, bars, words);
}

export function clearCounters() {
  cells.clear();
  list.replaceChildren();
}
