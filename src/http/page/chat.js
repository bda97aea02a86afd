// The page: who the user is, what is written, and what the parts tell each other.

import { STOP_STREAMING } from "./activity.js";
import { actionButton, opens } from "./cards.js";
import { DirectLine, Failure } from "./directline.js";
import { ACTIONS, el, icon, randomText, safeUrl, sizeText, stored } from "./dom.js";
import { Follower } from "./follow.js";
import { Inspector } from "./inspector.js";
import { Transcript } from "./transcript.js";

const USUAL_SECRET = "dev-secret";
/** Until then, what comes may be history: a screen reader is not told all of it. */
const SETTLE_MS = 1_500;

const parts = Object.fromEntries(
  [...document.querySelectorAll("[id]")].map((element) => [element.id, element]),
);
const local = stored("localStorage");
const session = stored("sessionStorage");

const secret = new URLSearchParams(location.search).get("secret") || USUAL_SECRET;
const sessionKey = `turnwire.session.${secret}`;
const user = whoIAm();

function whoIAm() {
  const known = local.get("turnwire.user");
  if (typeof known?.id === "string" && known.id.startsWith("dl_")) return known;
  const fresh = { id: `dl_${randomText(8)}`, name: "User" };
  local.set("turnwire.user", fresh);
  return fresh;
}

// What is said

const transcript = new Transcript({
  list: parts.list,
  typing: parts.typing,
  me: user.id,
  context: { act, post: (message) => say(message) },
  on: { latest: suggest, retry: deliver, stop: stopReply },
});

const inspector = new Inspector({ list: parts.rows, scroller: parts.wire, count: parts.count });

const line = new DirectLine({
  base: "/v3/directline",
  secret,
  user,
  session: session.get(sessionKey),
  on: {
    state: showState,
    session: (kept) => session.set(sessionKey, kept),
    activity(activity) {
      inspector.received(activity);
      try {
        transcript.take(activity);
      } catch (error) {
        // Whatever a bot may have put in it: the others are shown all the same.
        console.error("an activity that cannot be shown", error, activity);
      }
      parts.hint.hidden = true;
      if (!view.following && activity.type === "message") parts.latest.classList.add("news");
    },
    lost: (reason) => transcript.notice(`${reason} A new one begins here.`),
  },
});

/** Says something as the user: at once on the page, and then to the gateway. */
function say(message, files = []) {
  const activity = {
    type: "message",
    from: { ...user, role: "user" },
    locale: navigator.language,
    localTimestamp: localTime(new Date()),
    localTimezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
    ...message,
    channelData: { ...message.channelData, clientActivityID: randomText() },
  };
  if (files.length > 0) {
    activity.attachments = files.map(({ file }) => ({ contentType: file.type, name: file.name }));
  }
  parts.hint.hidden = true;
  view.follow();
  deliver(transcript.outgoing(activity, files));
}

/** Sends what is shown, for the first time or again: with the same `clientActivityID` it stays one activity. */
async function deliver(item) {
  transcript.mark(item, "sending");
  const told = inspector.sent(item.activity);
  try {
    const { id } = await line.post(item.activity, item.files.map(({ file }) => file));
    // What tells activities of one conversation apart is the end of their ids.
    told(`200 ${String(id).split("|").at(-1)}`);
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    told(failure.status === 0 ? failure.message : `${failure.status} ${failure.message}`, true);
    item.isFinal = failure.isRefusal && !failure.isGone;
    transcript.mark(item, "failed", failure.message);
    if (failure.status === 0) unsent.add(item);
  }
}

/** Stops a reply that grows. That it is stopped is seen in the stream. */
async function stopReply(streamId) {
  const activity = { type: "event", name: STOP_STREAMING, value: { streamId }, from: { ...user, role: "user" } };
  const told = inspector.sent(activity);
  try {
    const { id } = await line.post(activity);
    told(`200 ${String(id).split("|").at(-1)}`);
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    told(failure.status === 0 ? failure.message : `${failure.status} ${failure.message}`, true);
  }
}

/** What no gateway answered to, in the order it was said. */
const unsent = new Set();

/** Sends it when there is a gateway again. One after the other, so that the order stays. */
async function deliverUnsent() {
  for (const item of [...unsent]) {
    if (unsent.delete(item) && item.state === "failed") await deliver(item);
  }
}

/** The time with the offset of this place, which `toISOString` leaves out. */
function localTime(date) {
  const offset = -date.getTimezoneOffset();
  const two = (number) => String(Math.floor(Math.abs(number))).padStart(2, "0");
  const here = new Date(date.getTime() + offset * 60_000).toISOString().slice(0, -1);
  return `${here}${offset < 0 ? "-" : "+"}${two(offset / 60)}:${two(offset % 60)}`;
}

/** Carries out a card action. */
function act(action) {
  const { type, title, text, displayText, value } = action;
  if (opens(action)) {
    const url = safeUrl(value, ACTIONS);
    if (url !== null) window.open(url, "_blank", "noopener,noreferrer");
  } else if (type === "imBack") {
    say({ text: typeof value === "string" ? value : title ?? "", textFormat: "plain" });
  } else if (type === "messageBack") {
    say({ text, value, channelData: { messageBack: { displayText } } });
  } else if (typeof value === "string" || value === undefined) {
    // postBack, and what is not known.
    say({ text: value ?? title ?? "", textFormat: "plain", channelData: { postBack: true } });
  } else {
    say({ value, channelData: { postBack: true } });
  }
}

/** Offers what the newest message suggests; nothing when the user has answered. */
function suggest(activity) {
  const { to = [], actions = [] } = activity?.suggestedActions ?? {};
  const forMe = activity?.from?.id !== user.id && (to.length === 0 || to.includes(user.id));
  const offered = forMe ? actions.filter((action) => action?.type) : [];
  const had = parts.suggested.contains(document.activeElement);
  parts.suggested.replaceChildren(...offered.map((action) => actionButton(action, { act }, "button suggestion")));
  parts.suggested.hidden = offered.length === 0;
  if (had && offered.length === 0) parts.text.focus();
}

// How the connection is

let ticking = 0;

function showState({ name, by, until, reason }) {
  clearInterval(ticking);
  const lamp = parts.state.parentElement;
  const offline = name === "waiting" && navigator.onLine === false;
  lamp.dataset.state = offline ? "offline" : name;
  parts.retry.hidden = name !== "waiting" && name !== "refused";
  parts.countdown.textContent = "";
  const words = {
    connecting: "connecting",
    connected: by === "polling" ? "connected, by polling" : "connected",
    waiting: offline ? "offline, trying again" : "reconnecting",
    refused: reason,
  };
  if (parts.state.textContent !== words[name]) parts.state.textContent = words[name];
  if (name === "waiting") {
    const tick = () => {
      const seconds = Math.max(1, Math.ceil((until - Date.now()) / 1000));
      parts.countdown.textContent = `in ${seconds} s`;
    };
    tick();
    ticking = setInterval(tick, 250);
  }
  if (name === "connected") {
    settle();
    deliverUnsent();
  }
}

let settling = 0;

/** Lets history pass in silence; then the log speaks, and an empty one says what to do. */
function settle() {
  if (parts.log.getAttribute("aria-live") === "polite") return;
  clearTimeout(settling);
  settling = setTimeout(() => {
    parts.log.setAttribute("aria-live", "polite");
    parts.hint.hidden = parts.list.childElementCount > 0;
  }, SETTLE_MS);
}

function begin() {
  clearTimeout(settling);
  parts.log.setAttribute("aria-live", "off");
  parts.hint.hidden = true;
  view.follow();
}

parts.retry.addEventListener("click", () => line.retryNow());
window.addEventListener("online", () => line.retryNow());
parts.anew.addEventListener("click", () => {
  begin();
  transcript.clear();
  inspector.clear();
  line.startOver();
  parts.text.focus();
});

// Where the view is

const view = new Follower(parts.log, [parts.list, parts.typing], (following) => {
  parts.latest.hidden = following;
  if (following) parts.latest.classList.remove("news");
});
parts.latest.addEventListener("click", () => view.follow());

// What is written

let tray = [];

parts.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = parts.text.value.trim();
  if (text === "" && tray.length === 0) return;
  const files = tray;
  tray = [];
  parts.text.value = "";
  say(text === "" ? {} : { text, textFormat: "plain" }, files);
  showTray();
  fit();
  parts.text.focus();
});

parts.text.addEventListener("keydown", (event) => {
  // While an input method composes, Enter ends a word and not the message.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  parts.composer.requestSubmit();
});
parts.text.addEventListener("input", fit);

/** As high as the text, up to what the style allows, and a button that can be pressed if there is something. */
function fit() {
  parts.text.style.height = "auto";
  parts.text.style.height = `${parts.text.scrollHeight}px`;
  parts.send.disabled = parts.text.value.trim() === "" && tray.length === 0;
}

function attach(files) {
  const names = new Set(tray.map(({ file }) => file.name));
  for (let file of files) {
    // The gateway finds the part of an attachment by its name: pasted pictures are all called the same.
    const name = unused(file.name || "file", names);
    names.add(name);
    const type = file.type || "application/octet-stream";
    if (name !== file.name || type !== file.type) file = new File([file], name, { type });
    tray.push({ file, url: URL.createObjectURL(file) });
  }
  showTray();
  fit();
  parts.text.focus();
}

function unused(name, names) {
  const dot = name.lastIndexOf(".");
  const [stem, end] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
  let candidate = name;
  for (let number = 2; names.has(candidate); number += 1) candidate = `${stem}-${number}${end}`;
  return candidate;
}

function showTray() {
  parts.tray.hidden = tray.length === 0;
  parts.tray.replaceChildren(
    ...tray.map((entry) => {
      const { file, url } = entry;
      const remove = () => {
        URL.revokeObjectURL(url);
        tray = tray.filter((other) => other !== entry);
        showTray();
        fit();
        parts.text.focus();
      };
      return el(
        "li",
        null,
        file.type.startsWith("image/") ? el("img", { src: url, alt: "" }) : icon("file"),
        el("span", { class: "name" }, file.name),
        el("small", null, sizeText(file.size)),
        el("button", { type: "button", class: "round", "aria-label": `Leave out ${file.name}`, onclick: remove }, icon("close")),
      );
    }),
  );
}

parts.attach.addEventListener("click", () => parts.files.click());
parts.files.addEventListener("change", () => {
  attach(parts.files.files);
  parts.files.value = "";
});
parts.text.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length === 0) return;
  event.preventDefault();
  attach(event.clipboardData.files);
});

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
window.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  parts.drop.hidden = false;
});
window.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) parts.drop.hidden = true;
});
window.addEventListener("drop", (event) => {
  parts.drop.hidden = true;
  if (!hasFiles(event)) return;
  event.preventDefault();
  attach(event.dataTransfer.files);
});

// The activities beside the chat

function showInspector(open) {
  parts.inspector.hidden = !open;
  document.body.classList.toggle("inspecting", open);
  parts.activities.setAttribute("aria-pressed", String(open));
  local.set("turnwire.activities", open);
  if (open) inspector.toNewest();
}

parts.activities.addEventListener("click", () => showInspector(parts.inspector.hidden));
parts.close.addEventListener("click", () => {
  showInspector(false);
  parts.activities.focus();
});
parts.inspector.addEventListener("keydown", (event) => {
  if (event.key === "Escape") parts.close.click();
});
parts.expand.addEventListener("click", () => {
  parts.expand.textContent = inspector.toggleAll() ? "Collapse all" : "Expand all";
});
parts.copy.addEventListener("click", async () => {
  parts.copy.textContent = (await inspector.copyAll()) ? "Copied" : "Not copied";
  setTimeout(() => {
    parts.copy.textContent = "Copy all";
  }, 1_200);
});

const drawings = { attach: "attach", close: "close", latest: "down", send: "send" };
for (const [id, name] of Object.entries(drawings)) parts[id].append(icon(name));
parts.activities.prepend(icon("activities"));
parts.anew.prepend(icon("add"));

showInspector(local.get("turnwire.activities") === true);
begin();
fit();
line.connect();
