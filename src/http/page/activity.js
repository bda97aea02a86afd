// What one activity looks like, and what can be read off it.

import { attachments } from "./cards.js";
import { dateOf, el, timeNode } from "./dom.js";
import { formatted } from "./markdown.js";

/** The event by which a user stops a streamed reply. */
export const STOP_STREAMING = "turnwire/stopStreaming";

/** The streamed reply that an activity is a part of, or null: from `channelData`, or a `streaminfo` entity. */
export function streamOf(activity) {
  const entities = (activity.entities ?? []).filter((entity) => entity?.type === "streaminfo");
  const data = activity.channelData?.streamType || activity.channelData?.streamId ? activity.channelData : null;
  // More than one `streaminfo` is none.
  const entity = entities.length === 1 ? entities[0] : null;
  const info = data ?? entity;
  if (info === null) return null;
  const id = info.streamId ?? activity.id;
  if (id === undefined) return null;
  const type = info.streamType ?? (activity.type === "message" ? "final" : "streaming");
  return { id, type, sequence: Number(info.streamSequence) || 0, brokenOff: entity?.streamResult === "error" };
}

/** What a user's button press says in the chat; null when it is meant for the bot alone. */
function shownText({ text, channelData }) {
  if (channelData?.postBack === true) return null;
  return channelData?.messageBack?.displayText ?? text ?? "";
}

/** A message that is not for the chat: only the activities panel has it. */
export function isSilent(activity) {
  return activity.type === "message" && shownText(activity) === null;
}

export function isEmpty(activity) {
  return !shownText(activity) && !(activity.attachments?.length > 0);
}

/** The bubble and the attachments of a message. */
export function messageBody(activity, context) {
  const text = shownText(activity);
  const nodes = [];
  if (text) nodes.push(el("div", { class: "bubble" }, formatted(text, activity.textFormat)));
  const files = attachments(activity, context);
  if (files !== null) nodes.push(files);
  if (nodes.length === 0) nodes.push(el("div", { class: "bubble subtle" }, "(no text)"));
  return nodes;
}

/** The bubble of a streamed reply that is not whole yet. */
export function streamBody(activity, stream) {
  const text = activity.text ?? "";
  if (stream.type === "informative") return [el("div", { class: "bubble informative" }, dots(), el("span", null, text))];
  return [el("div", { class: "bubble growing" }, text === "" ? dots() : formatted(text, activity.textFormat))];
}

export function dots() {
  return el("span", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
}

/** The name to show over what someone says. */
export function nameOf({ from, recipient }, me) {
  if (from?.id === me) return from.name ?? recipient?.name ?? "You";
  return from?.name || from?.id || "bot";
}

/** What is no message is a small line; null when it is nothing for the chat. */
export function noteNode(activity, me) {
  const text = noteText(activity);
  if (text === null) return null;
  const who = activity.from?.id === me ? "you" : nameOf(activity, me);
  return [el("span", null, `${who}: ${text}`), timeNode(dateOf(activity))];
}

function noteText({ type, name, code, text, label, action, value, membersAdded, membersRemoved, ...rest }) {
  const names = (accounts, sign) => (accounts ?? []).map((account) => `${sign}${account.name ?? account.id}`);
  switch (type) {
    case "typing":
      return null;
    case "event":
      return name === STOP_STREAMING ? "stopped the reply" : `event ${name ?? ""}`;
    case "endOfConversation":
      return ["ended the conversation", code, text].filter(Boolean).join(", ");
    case "handoff":
      return ["handoff", name].filter(Boolean).join(" ");
    case "messageReaction": {
      const types = (reactions, sign) => (reactions ?? []).map((reaction) => `${sign}${reaction.type}`);
      return ["reaction", ...types(rest.reactionsAdded, "+"), ...types(rest.reactionsRemoved, "-")].join(" ");
    }
    case "conversationUpdate":
      return ["conversation update", ...names(membersAdded, "+"), ...names(membersRemoved, "-")].join(" ");
    case "trace":
      return ["trace", label ?? name].filter(Boolean).join(" ");
    case "suggestion":
      return `suggestion ${text ?? ""}`;
    default:
      return [type, name ?? action ?? (typeof value === "string" ? value : null)].filter(Boolean).join(" ");
  }
}
