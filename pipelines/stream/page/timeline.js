// Seconds of the stream from its beginning to now: what is remembered, and what the chosen answer rests on.
import { clock } from "./times.js";

const line = document.getElementById("timeline");
let cited = [];
let marks = [];
let range = [0, 0];

export function setRange(first, last) {
  range = [first ?? 0, last ?? 0];
  draw();
}

export function setCited(spans) {
  cited = spans;
  draw();
}

export function setMarks(seconds) {
  marks = seconds;
  draw();
}

function draw() {
  line.replaceChildren();
  const [first, last] = range;
  if (last <= 0) return;
  const at = (s) => `${(100 * Math.min(Math.max(s, 0), last)) / last}%`;
  const add = (tag, from, to) => {
    const part = document.createElement(tag);
    part.style.left = at(from);
    if (to !== undefined) part.style.width = `${(100 * Math.max(0, to - from)) / last}%`;
    line.append(part);
    return part;
  };
  add("i", first, last);
  for (const [from, to] of cited) add("b", from, to);
  for (const second of marks) add("u", second);
  for (const second of [0, last / 2, last]) add("span", second).textContent = clock(second, 0);
}
