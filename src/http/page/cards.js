// Attachments: files and the cards of the Bot Framework. Adaptive Cards are in adaptive.js.
//
// `context` is what a card may do: `act(action)` carries out a card action, `post(message)` says
// something on the user's behalf.

import { adaptiveCard } from "./adaptive.js";
import { ACTIONS, el, icon, link, MEDIA, safeUrl } from "./dom.js";
import { formatted } from "./markdown.js";

const CARD = "application/vnd.microsoft.card.";

const CARDS = {
  adaptive: adaptiveCard,
  animation: mediaCard,
  audio: mediaCard,
  hero: heroCard,
  oauth: signinCard,
  receipt: receiptCard,
  signin: signinCard,
  thumbnail: thumbnailCard,
  video: mediaCard,
};

/** All attachments of an activity, in its layout; null when it has none. */
export function attachments(activity, context) {
  const list = activity.attachments ?? [];
  if (list.length === 0) return null;
  const nodes = list.map((attachment) => el("div", { class: "attachment" }, attachmentNode(attachment, context)));
  if (activity.attachmentLayout !== "carousel" || nodes.length === 1) {
    return el("div", { class: "attachments" }, nodes);
  }
  const strip = el("div", { class: "strip", tabindex: 0, role: "group", "aria-label": `${nodes.length} cards` }, nodes);
  const turn = (by) => strip.scrollBy({ left: by * strip.clientWidth * 0.8, behavior: "smooth" });
  const button = (name, label, by) =>
    el("button", { type: "button", class: "round turn", "aria-label": label, onclick: () => turn(by) }, icon(name));
  return el(
    "div",
    { class: "attachments carousel" },
    strip,
    el("div", { class: "turns" }, button("left", "Previous cards", -1), button("right", "Next cards", 1)),
  );
}

function attachmentNode(attachment, context) {
  const { contentType = "", contentUrl, content } = attachment;
  if (contentType.startsWith(CARD) && content !== null && typeof content === "object") {
    const kind = contentType.slice(CARD.length);
    const build = Object.hasOwn(CARDS, kind) ? CARDS[kind] : null;
    try {
      if (build !== null) return build(content, context, kind);
    } catch (error) {
      // A card may have anything anywhere: then it is shown as it came.
      console.error("a card that cannot be shown", error, content);
    }
  }
  if (typeof contentUrl === "string") return file(attachment);
  if (typeof content === "string") return el("div", { class: "card padded pre" }, content);
  return unknown(contentType, content);
}

function unknown(contentType, content) {
  return el(
    "details",
    { class: "card padded unknown" },
    el("summary", null, contentType || "attachment"),
    el("pre", null, JSON.stringify(content, null, 2) ?? "no content"),
  );
}

/** A file: pictures, sound and film where they stand, everything else as a link. */
function file({ contentType = "", contentUrl, thumbnailUrl, name }) {
  const url = safeUrl(contentUrl, MEDIA);
  const poster = safeUrl(thumbnailUrl, MEDIA);
  if (url === null) return el("span", { class: "file" }, icon("file"), el("span", null, name ?? contentUrl));
  if (contentType.startsWith("image/")) {
    const image = el("img", { src: poster ?? url, alt: name ?? "", loading: "lazy", class: "picture" });
    image.addEventListener("error", () => image.replaceWith(fileLink(url, name)), { once: true });
    return url.startsWith("data:") || url.startsWith("blob:") ? image : link(url, image);
  }
  if (contentType.startsWith("audio/")) return el("audio", { src: url, controls: true, preload: "metadata" });
  if (contentType.startsWith("video/")) {
    return el("video", { src: url, poster, controls: true, preload: "metadata", class: "picture" });
  }
  return fileLink(url, name);
}

function fileLink(url, name) {
  const local = url.startsWith("data:") || url.startsWith("blob:");
  const text = name ?? (local ? "file" : decodedName(url));
  const node = link(url, icon("file"), el("span", null, text));
  node.classList.add("file");
  // A browser opens no `data:` page, and one from a bot should not be opened.
  if (local) node.setAttribute("download", text);
  return node;
}

function decodedName(url) {
  const last = new URL(url).pathname.split("/").pop();
  try {
    return decodeURIComponent(last) || url;
  } catch {
    return last || url;
  }
}

/** A card's text: bold and so on as in a message. */
function text(content, className) {
  if (typeof content !== "string" || content === "") return null;
  return el("div", { class: className }, formatted(content));
}

function picture(image, context, className = "banner") {
  const url = safeUrl(typeof image === "string" ? image : image?.url, MEDIA);
  if (url === null) return null;
  const node = el("img", { src: url, alt: image.alt ?? "", loading: "lazy", class: className });
  node.addEventListener("error", () => node.remove(), { once: true });
  return tappable(node, image.tap, context);
}

function tappable(node, tap, context) {
  if (!tap?.type) return node;
  return el("button", { type: "button", class: "tap", title: tap.title, onclick: () => context.act(tap) }, node);
}

/** The buttons of a card; a link where a link is meant, so that it can be seen where it leads. */
export function buttons(actions, context) {
  const list = (Array.isArray(actions) ? actions : []).filter((action) => action?.type);
  if (list.length === 0) return null;
  return el("div", { class: "buttons" }, list.map((action) => actionButton(action, context)));
}

export function actionButton(action, context, className = "button") {
  const url = safeUrl(action.image, MEDIA);
  const image = url === null ? null : el("img", { src: url, alt: action.imageAltText ?? "", class: "glyph" });
  const title = action.title || (typeof action.value === "string" ? action.value : action.type);
  const target = opens(action) ? safeUrl(action.value, ACTIONS) : null;
  if (target !== null) {
    const node = link(target, image, title);
    node.className = className;
    return node;
  }
  const off = opens(action);
  const attributes = { type: "button", class: className, disabled: off, onclick: () => context.act(action) };
  return el("button", attributes, image, title);
}

const OPENS = ["openUrl", "showImage", "downloadFile", "playAudio", "playVideo", "signin", "openApp", "call"];

export function opens(action) {
  return OPENS.includes(action.type);
}

function heading({ title, subtitle, text: body }) {
  const nodes = [text(title, "title"), text(subtitle, "subtitle"), text(body, "text")];
  return nodes.some((node) => node !== null) ? el("div", { class: "words" }, nodes) : null;
}

function heroCard(content, context) {
  const image = picture(content.images?.[0], context);
  return el("div", { class: "card" }, image, tappableWords(content, context), buttons(content.buttons, context));
}

function thumbnailCard(content, context) {
  const image = picture(content.images?.[0], context, "thumbnail");
  const row = el("div", { class: "row" }, tappableWords(content, context), image);
  return el("div", { class: "card" }, row, buttons(content.buttons, context));
}

function tappableWords(content, context) {
  const words = heading(content);
  return words === null ? null : tappable(words, content.tap, context);
}

function signinCard(content, context) {
  return el("div", { class: "card" }, heading(content), buttons(content.buttons, context));
}

const MOVES = /\.(mp4|webm|ogv|mov)([?#]|$)/i;

function mediaCard(content, context, kind) {
  const urls = (content.media ?? []).map(({ url }) => safeUrl(url, MEDIA)).filter((url) => url !== null);
  const poster = picture(content.image, context);
  let media = poster;
  if (urls.length > 0 && kind === "animation" && !MOVES.test(urls[0])) {
    media = picture(content.media.find(({ url }) => safeUrl(url, MEDIA) !== null), context);
  } else if (urls.length > 0) {
    const sources = urls.map((url) => el("source", { src: url }));
    media = el(
      kind === "audio" ? "audio" : "video",
      {
        controls: kind !== "animation",
        // With sound only when asked for; a film without a sound may move by itself.
        autoplay: kind === "animation",
        muted: kind === "animation",
        loop: content.autoloop ?? kind === "animation",
        preload: "metadata",
        playsinline: true,
        poster: kind === "audio" ? null : safeUrl(content.image?.url, MEDIA),
        class: "banner",
      },
      sources,
    );
    if (kind === "animation") media.muted = true;
    // What is no media file (a page of a video site, say) is a link.
    const places = () => el("div", { class: "words" }, urls.map((url) => fileLink(url, content.title)));
    sources.at(-1).addEventListener("error", () => media.replaceWith(places()), { once: true });
  }
  const image = kind === "audio" && media !== poster ? poster : null;
  return el("div", { class: "card" }, image, media, heading(content), buttons(content.buttons, context));
}

function receiptCard(content, context) {
  const fact = (key, value, className = null) =>
    value === undefined || value === null || value === ""
      ? null
      : el("div", { class: className }, el("dt", null, key ?? ""), el("dd", null, String(value)));
  const items = (content.items ?? []).map((item) => {
    const quantity = item.quantity && String(item.quantity) !== "1" ? ` × ${item.quantity}` : "";
    const words = el(
      "div",
      { class: "what" },
      text(`${item.title ?? ""}${quantity}`, "title"),
      text(item.subtitle, "subtitle"),
      text(item.text, "text"),
    );
    const row = el("div", { class: "item-row" }, picture(item.image, context, "small"), words, el("span", null, item.price ?? ""));
    return tappable(row, item.tap, context);
  });
  const sums = [fact("VAT", content.vat), fact("Tax", content.tax), fact("Total", content.total, "total")];
  return el(
    "div",
    { class: "card receipt" },
    el(
      "div",
      { class: "words" },
      text(content.title, "title"),
      el("dl", { class: "facts" }, (content.facts ?? []).map(({ key, value }) => fact(key, value))),
      items,
      el("dl", { class: "facts sums" }, sums),
    ),
    buttons(content.buttons, context),
  );
}
