// Standing questions: what is waited for, and what came.
import { setMarks } from "./timeline.js";
import { clock } from "./times.js";

const box = document.getElementById("standing");
const list = document.getElementById("standing-list");

/** drop(number): it is waited for no longer. fired(entry): called once for each that fires while the page is open. */
export class StandingList {
  constructor({ drop, fired }) {
    this.drop = drop;
    this.fired = fired;
    this.known = null;
  }

  clear() {
    this.known = null;
    box.hidden = true;
    list.replaceChildren();
    setMarks([]);
  }

  show(entries) {
    const before = this.known;
    this.known = new Set(entries.filter((e) => e.fired !== null).map((e) => e.number));
    for (const entry of entries) {
      if (before && entry.fired !== null && !before.has(entry.number)) this.fired(entry);
    }
    box.hidden = !entries.length;
    setMarks(entries.filter((e) => e.fired !== null).map((e) => e.fired));
    list.replaceChildren(...entries.map((entry) => this.item(entry)));
  }

  item(entry) {
    const item = document.createElement("li");
    item.classList.toggle("fired", entry.fired !== null);
    const words = document.createElement("span");
    words.textContent = entry.text;
    const state = document.createElement("small");
    const until = entry.options.length ? `until it is ${entry.fires}` : "until it is so";
    state.textContent = entry.fired === null ? until : `came at ${clock(entry.fired)}`;
    words.append(state);
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = entry.fired === null ? "Drop" : "Done";
    button.setAttribute("aria-label", `${button.textContent}: ${entry.text}`);
    button.onclick = () => this.drop(entry.number);
    item.append(words, button);
    return item;
  }
}
