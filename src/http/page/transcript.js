// The conversation as it is shown: which activities there are, in which order, in which state.
//
// An activity is known by its id, and before it has one by its `clientActivityID`. The order is that of
// the stream; what is still being sent stands below it.

import { dots, isEmpty, isSilent, messageBody, nameOf, noteNode, streamBody, streamOf } from "./activity.js";
import { dateOf, el, timeNode } from "./dom.js";

const TYPING_MS = 5_000;
/** A streamed reply that did not grow for so long is not growing any more. */
const STALLED_MS = 30_000;
/** Messages of one author within this time stand together. */
const TOGETHER_MS = 60_000;

export class Transcript {
  #list;
  #typing;
  #me;
  #context;
  #on;
  #byId = new Map();
  #byClient = new Map();
  #streams = new Map();
  #writers = new Map();

  /**
   * `on.latest(activity)`: the newest message of all, whoever said it, or null; `on.retry(item)`: a message
   * that was not sent is to be tried again; `on.stop(id)`: a reply that grows is to be stopped.
   */
  constructor({ list, typing, me, context, on }) {
    this.#list = list;
    this.#typing = typing;
    this.#me = me;
    this.#context = context;
    this.#on = on;
  }

  clear() {
    for (const item of this.#streams.values()) clearTimeout(item.stalled);
    for (const { timer } of this.#writers.values()) clearTimeout(timer);
    this.#byId.clear();
    this.#byClient.clear();
    this.#streams.clear();
    this.#writers.clear();
    this.#list.replaceChildren();
    this.#showWriters();
    this.#on.latest(null);
  }

  /** A line of the page's own. */
  notice(text) {
    this.#place({ node: el("div", { class: "item notice" }, text) });
  }

  /** Shows what is about to be sent. */
  outgoing(activity, files) {
    const item = { activity, files, state: "sending", node: null };
    this.#byClient.set(activity.channelData.clientActivityID, item);
    this.#show(item);
    this.#list.append(item.node);
    this.#regroup(item.node);
    this.#on.latest(activity);
    return item;
  }

  /** Says how far a message of the user's is; what the stream has confirmed stays sent. */
  mark(item, state, reason = null) {
    if (item.state === "sent") return;
    item.state = state;
    item.reason = reason;
    this.#show(item);
    if (state === "sending") this.#list.append(item.node);
    this.#regroup(item.node);
  }

  /** Takes an activity of the stream, which may have come before. */
  take(activity) {
    if (activity.type === "typing") this.#takeTyping(activity);
    else if (activity.type === "messageDelete") this.#remove(activity.id);
    else if (activity.type === "message" || activity.type === "messageUpdate") this.#takeMessage(activity);
    else this.#takeNote(activity);
  }

  #takeMessage(activity) {
    this.#stopsWriting(activity.from?.id);
    const stream = streamOf(activity);
    const growing = stream === null ? undefined : this.#streams.get(stream.id);
    if (stream !== null) this.#streams.set(stream.id, { done: true });
    const client = activity.from?.id === this.#me ? this.#byClient.get(activity.channelData?.clientActivityID) : undefined;
    const known = this.#byId.get(activity.id) ?? (client?.state === "sent" ? undefined : client);
    const item = known ?? (growing?.node ? growing : { node: null });
    clearTimeout(item.stalled);
    const isNew = known === undefined || known === client;
    if (known !== undefined && !isNew) {
      if (JSON.stringify(known.activity) === JSON.stringify(activity)) return;
      item.edited = true;
    }
    item.activity = activity;
    item.state = "sent";
    item.stream = null;
    item.brokenOff = stream?.brokenOff ?? false;
    item.reason = null;
    for (const { url } of item.files ?? []) if (url) URL.revokeObjectURL(url);
    item.files = [];
    if (activity.id !== undefined) this.#byId.set(activity.id, item);
    this.#show(item);
    if (isNew) this.#place(item);
    else this.#regroup(item.node);
    if (isNew || item === this.#latestItem) this.#setLatest(item);
  }

  #takeNote(activity) {
    if (activity.type === "endOfConversation") this.#stopsWriting(activity.from?.id);
    if (activity.id !== undefined && this.#byId.has(activity.id)) return;
    const nodes = noteNode(activity, this.#me);
    if (nodes === null) return;
    const item = { activity, node: el("div", { class: "item note" }, nodes) };
    if (activity.id !== undefined) this.#byId.set(activity.id, item);
    this.#place(item);
  }

  #takeTyping(activity) {
    if (activity.from?.id === this.#me) return;
    const stream = streamOf(activity);
    if (stream === null) {
      this.#writes(activity);
      return;
    }
    const item = this.#streams.get(stream.id) ?? { node: null, sequence: 0 };
    if (item.done) return;
    this.#stopsWriting(activity.from?.id);
    if (stream.type === "final") {
      // Without a message there is nothing to say any more.
      item.node?.remove();
      clearTimeout(item.stalled);
      this.#streams.set(stream.id, { done: true });
      return;
    }
    // A chunk has the whole text so far: an older one that comes late has nothing new.
    if (stream.sequence !== 0 && stream.sequence <= item.sequence) return;
    const isNew = item.node === null;
    Object.assign(item, { activity, stream, sequence: stream.sequence, state: "streaming" });
    this.#streams.set(stream.id, item);
    clearTimeout(item.stalled);
    item.stalled = setTimeout(() => item.node?.classList.add("stalled"), STALLED_MS);
    this.#show(item);
    if (isNew) this.#place(item);
  }

  #latestItem = null;

  #setLatest(item) {
    this.#latestItem = item;
    this.#on.latest(item?.activity ?? null);
  }

  #remove(id) {
    const item = this.#byId.get(id);
    if (item === undefined) return;
    this.#byId.delete(id);
    const next = item.node.nextElementSibling;
    item.node.remove();
    if (next !== null) this.#regroup(next);
    if (item === this.#latestItem) this.#setLatest(null);
  }

  /** Puts an item after everything that has arrived, above what is being sent. */
  #place(item) {
    let before = null;
    let last = this.#list.lastElementChild;
    while (last !== null && (last === item.node || last.classList.contains("sending"))) {
      if (last !== item.node) before = last;
      last = last.previousElementSibling;
    }
    const follower = item.node.nextElementSibling;
    // Moving a node that stands right would take the focus from what is inside.
    if (!item.node.isConnected || follower !== before) this.#list.insertBefore(item.node, before);
    this.#regroup(item.node);
    if (follower !== null && follower !== before) this.#regroup(follower);
  }

  /** Whether a node, and the one after it, continue what the one before them begins. */
  #regroup(node) {
    for (const one of [node, node.nextElementSibling]) {
      if (one === null) continue;
      const before = one.previousElementSibling;
      const joined =
        before?.dataset.author !== undefined &&
        before.dataset.author === one.dataset.author &&
        Math.abs(one.dataset.at - before.dataset.at) < TOGETHER_MS;
      one.classList.toggle("joined", joined);
      before?.classList.toggle("followed", joined);
    }
  }

  /** Builds what an item looks like now, in the node that it has. */
  #show(item) {
    const { activity, state } = item;
    const mine = activity.from?.id === this.#me;
    item.node ??= el("div", null);
    const { node } = item;
    node.className = `item message ${mine ? "mine" : "theirs"} ${state}`;
    node.dataset.author = activity.from?.id ?? "";
    node.dataset.at = dateOf(activity).getTime();
    node.hidden = (isSilent(activity) || (mine && isEmpty(activity))) && state !== "failed";
    // A screen reader waits until a streamed reply is whole.
    if (state === "streaming") node.setAttribute("aria-busy", "true");
    else node.removeAttribute("aria-busy");
    const shown = item.files?.length > 0 ? { ...activity, attachments: item.files.map(localFile) } : activity;
    node.replaceChildren(
      el("div", { class: mine ? "author off-screen" : "author" }, nameOf(activity, this.#me)),
      ...(item.stream ? streamBody(activity, item.stream) : messageBody(shown, this.#context)),
      this.#meta(item),
    );
  }

  #meta(item) {
    const time = timeNode(dateOf(item.activity));
    const meta = el("div", { class: "meta" }, time);
    if (item.stream) {
      const { id } = item.stream;
      meta.append(el("button", { type: "button", class: "again", onclick: () => this.#on.stop(id) }, "stop"));
    }
    if (item.brokenOff) meta.append(el("span", { class: "failure" }, "interrupted"));
    if (item.edited) meta.append(el("span", null, "edited"));
    if (item.state === "sending") meta.append(el("span", null, "sending"));
    if (item.state === "sent" && item.activity.from?.id === this.#me) meta.append(el("span", null, "sent"));
    if (item.state === "failed") {
      meta.append(
        el("span", { class: "failure" }, `not sent: ${item.reason}`),
      );
      // What is wrong with it stays wrong.
      if (!item.isFinal) {
        meta.append(el("button", { type: "button", class: "again", onclick: () => this.#on.retry(item) }, "try again"));
      }
    }
    return meta;
  }

  #writes({ from }) {
    const id = from?.id ?? "";
    clearTimeout(this.#writers.get(id)?.timer);
    const timer = setTimeout(() => this.#stopsWriting(id), TYPING_MS);
    this.#writers.set(id, { name: nameOf({ from }, this.#me), timer });
    this.#showWriters();
  }

  #stopsWriting(id = "") {
    const writer = this.#writers.get(id);
    if (writer === undefined) return;
    clearTimeout(writer.timer);
    this.#writers.delete(id);
    this.#showWriters();
  }

  #showWriters() {
    const names = [...this.#writers.values()].map(({ name }) => name);
    this.#typing.hidden = names.length === 0;
    const text = el("span", { class: "off-screen" }, names.length === 0 ? "" : `${names.join(", ")} is typing`);
    this.#typing.replaceChildren(...(names.length === 0 ? [] : [dots(), text]));
  }
}

function localFile({ file, url }) {
  return { contentType: file.type || "application/octet-stream", contentUrl: url, name: file.name };
}
