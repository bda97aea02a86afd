// The activities as they went over the wire, in and out: what a bot's developer looks at.

import { copyText, dateOf, el, icon, timeNode } from "./dom.js";
import { Follower } from "./follow.js";

/** The oldest rows go when there are more. */
const ROWS = 2_000;

const TOKENS = /("(?:\\.|[^"\\])*")(\s*:)?|\b(true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

export class Inspector {
  #list;
  #follower;
  #count;
  #open = false;
  #number = 0;
  #rows = [];

  constructor({ list, scroller, count }) {
    this.#list = list;
    this.#count = count;
    this.#follower = new Follower(scroller, [list]);
  }

  clear() {
    this.#rows = [];
    this.#number = 0;
    this.#list.replaceChildren();
    this.#count.textContent = "";
  }

  received(activity) {
    this.#add("in", activity);
  }

  /** A post on its way; the answer tells what became of it. */
  sent(activity) {
    const result = el("span", { class: "result" });
    this.#add("out", activity, result);
    return (text, failed = false) => {
      result.textContent = text;
      result.classList.toggle("failure", failed);
    };
  }

  /** Opens or closes all rows, also those to come. */
  toggleAll() {
    this.#open = !this.#open;
    for (const { details } of this.#rows) details.open = this.#open;
    return this.#open;
  }

  copyAll() {
    return copyText(JSON.stringify(this.#rows.map(({ activity }) => activity), null, 2));
  }

  toNewest() {
    this.#follower.follow();
  }

  #add(direction, activity, result = null) {
    this.#number += 1;
    const summary = el(
      "summary",
      null,
      el("span", { class: `direction ${direction}` }, direction),
      el("span", { class: "type" }, activity.type ?? "?"),
      el("span", { class: "gist" }, gist(activity)),
      result,
      timeNode(direction === "out" ? new Date() : dateOf(activity), true),
    );
    const details = el("details", { open: this.#open }, summary);
    const fill = () => {
      // Only what is looked at is formatted.
      if (details.open && details.lastChild === summary) details.append(json(activity));
    };
    details.addEventListener("toggle", fill);
    const copy = el(
      "button",
      { type: "button", class: "round copy", "aria-label": `Copy activity ${this.#number}`, title: "Copy" },
      icon("copy"),
    );
    copy.addEventListener("click", async () => {
      copy.classList.toggle("done", await copyText(JSON.stringify(activity, null, 2)));
      setTimeout(() => copy.classList.remove("done"), 1_200);
    });
    const row = { node: el("li", null, details, copy), details, activity };
    this.#rows.push(row);
    this.#list.append(row.node);
    if (this.#rows.length > ROWS) this.#rows.shift().node.remove();
    this.#count.textContent = String(this.#number);
  }
}

function gist({ text, name, value, attachments, code, from }) {
  const what = text || name || code || attachments?.map(({ contentType }) => contentType).join(", ");
  const said = what || (value === undefined ? "" : JSON.stringify(value));
  return `${from?.name ?? from?.id ?? ""}${said ? `: ${said.slice(0, 200)}` : ""}`;
}

/** JSON with its keys and values told apart by colour. */
function json(value) {
  const text = JSON.stringify(value, null, 2);
  const pre = el("pre", { tabindex: 0 });
  let end = 0;
  for (const match of text.matchAll(TOKENS)) {
    const [whole, string, colon, word] = match;
    pre.append(text.slice(end, match.index));
    const kind = colon ? "key" : string ? "string" : word ? "word" : "number";
    pre.append(el("span", { class: kind }, string ?? whole), colon ?? "");
    end = match.index + whole.length;
  }
  pre.append(text.slice(end));
  return pre;
}
