// Questions and answers, the newest first, each with the seconds that it rests on.
import { setCited } from "./timeline.js";
import { clock, span, toFirstToken, took } from "./times.js";

const list = document.getElementById("answers");
const nothing = document.getElementById("nothing");
const MOST = 100;
const open = new Map();

/** jump(seconds): goes there, or gives {src, seconds} of a picture of then. */
export class Talk {
  constructor({ jump, cancel }) {
    this.jump = jump;
    this.cancel = cancel;
  }

  ask(id, text, at) {
    nothing.hidden = true;
    const item = document.createElement("li");
    item.append(asked(text, at), make("p", "said making"), make("div", "cites"));
    const back = make("button", "take-back", "Take back");
    back.type = "button";
    back.onclick = () => this.cancel(id);
    item.querySelector(".cites").append(back);
    list.prepend(item);
    while (list.children.length > MOST) list.lastChild.remove();
    open.set(id, item);
  }

  text(id, text) {
    const said = open.get(id)?.querySelector(".said");
    if (said) said.textContent = text;
  }

  answer(message) {
    const item = open.get(message.id);
    if (!item) return;
    open.delete(message.id);
    const said = item.querySelector(".said");
    said.classList.remove("making");
    said.textContent = message.text || "(The model said nothing.)";
    if (!message.whole) said.textContent += " …";
    this.cites(item, message.cited);
    const tokens = message.tokens;
    const facts = `at ${clock(message.asked_at)}  ·  ${tokens.resident} of ${tokens.dense} tokens held, ${tokens.llm} on average in the LLM  ·  `;
    item.append(make("p", "facts", `${facts}first token ${took(toFirstToken(message.seconds))}`));
  }

  failed(id, sentence) {
    const item = open.get(id);
    if (!item) return;
    open.delete(id);
    const said = item.querySelector(".said");
    said.className = "said bad";
    said.textContent = sentence;
    item.querySelector(".cites").replaceChildren();
  }

  fired(entry) {
    nothing.hidden = true;
    const item = document.createElement("li");
    const said = make("p", "said", `${entry.options.length ? entry.fires : "Yes"}, at ${clock(entry.fired)}`);
    item.append(asked(entry.text), said, make("div", "cites"));
    list.prepend(item);
    this.cites(item, entry.cited.length ? entry.cited : [[entry.fired, entry.fired]]);
  }

  /** Another stream follows: its seconds are not those of these answers. */
  past() {
    this.lost();
    for (const button of list.querySelectorAll(".cites button")) button.disabled = true;
  }

  /** What was asked before the connection was lost will not be answered. */
  lost() {
    for (const id of [...open.keys()]) this.failed(id, "The connection was lost before the answer came. Ask again.");
  }

  cites(item, spans) {
    const row = item.querySelector(".cites");
    row.replaceChildren();
    if (!spans.length) return;
    row.append("rests on");
    for (const one of spans) {
      const button = make("button", "", span(one));
      button.type = "button";
      button.setAttribute("aria-label", `Go to ${span(one)}`);
      button.setAttribute("aria-pressed", "false");
      button.onclick = () => this.go(item, button, one, spans);
      row.append(button);
    }
    setCited(spans);
  }

  async go(item, button, one, spans) {
    for (const other of list.querySelectorAll(".cites button[aria-pressed=true]")) other.setAttribute("aria-pressed", "false");
    for (const old of list.querySelectorAll(".then")) old.remove();
    button.setAttribute("aria-pressed", "true");
    setCited(spans);
    const then = await this.jump(one[0]);
    if (!then) return;
    const figure = make("figure", "then");
    const caption = make("figcaption", "", then.src ? `shown at ${clock(then.seconds)}` : then.message);
    if (then.src) {
      const picture = document.createElement("img");
      picture.src = then.src;
      picture.alt = `What was shown at ${clock(then.seconds)}`;
      figure.append(picture);
    }
    figure.append(caption);
    item.append(figure);
  }
}

function asked(text, at) {
  const line = make("p", "asked", text);
  if (at !== undefined) {
    const time = document.createElement("time");
    time.textContent = clock(at);
    line.append(time);
  }
  return line;
}

function make(tag, kind, text = "") {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.textContent = text;
  return made;
}
