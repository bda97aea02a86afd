// Helpers for building nodes. Nothing here, or elsewhere in the page, parses HTML: what comes from
// the network becomes text nodes and checked attributes.

const SVG = "http://www.w3.org/2000/svg";

/** Builds an element. `on…` attributes are listeners, true and false set or leave out, null is nothing. */
export function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const ICONS = {
  activities: "M8 5 3 12l5 7M16 5l5 7-5 7",
  add: "M12 5v14M5 12h14",
  attach: "m20 11.5-8.2 8.2a5.3 5.3 0 0 1-7.5-7.5l8.5-8.4a3.5 3.5 0 0 1 5 5L9.4 17a1.8 1.8 0 0 1-2.5-2.5l7.6-7.6",
  close: "M6 6l12 12M18 6 6 18",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  down: "M12 5v14m-6-6 6 6 6-6",
  file: "M14 3H6v18h12V7zM14 3v4h4",
  left: "m15 5-7 7 7 7",
  right: "m9 5 7 7-7 7",
  send: "M12 19V5m-6 6 6-6 6 6",
};

/** A line drawing of 24 by 24 in the colour of the text around it, hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

export const LINKS = ["http:", "https:", "mailto:"];
export const ACTIONS = [...LINKS, "tel:", "sms:"];
export const MEDIA = ["http:", "https:", "data:", "blob:"];

/** The URL when it is whole and has one of these schemes, otherwise null: `javascript:` above all. */
export function safeUrl(text, schemes) {
  if (typeof text !== "string") return null;
  try {
    const url = new URL(text.trim());
    return schemes.includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** A link to somewhere else: a new tab that knows nothing of this one. */
export function link(url, ...children) {
  return el("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, ...children);
}

/** Random text, also where `crypto.randomUUID` is missing because the page came by plain http. */
export function randomText(bytes = 12) {
  const values = crypto.getRandomValues(new Uint8Array(bytes));
  return Array.from(values, (value) => value.toString(16).padStart(2, "0")).join("");
}

/** Web storage that is not there, full or forbidden is as good as empty. */
export function stored(storage) {
  return {
    get(key) {
      try {
        return JSON.parse(window[storage].getItem(key));
      } catch {
        return null;
      }
    },
    set(key, value) {
      try {
        if (value === null) window[storage].removeItem(key);
        else window[storage].setItem(key, JSON.stringify(value));
      } catch {
        // The page works without; only a reload begins anew.
      }
    },
  };
}

const HOUR = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const EXACT = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hourCycle: "h23",
});
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const WHOLE = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

/** The time of day, and the day too if it is not this one; or, `exact`, to the millisecond. */
export function timeNode(date, exact = false) {
  const today = date.toDateString() === new Date().toDateString();
  const format = exact ? EXACT : today ? HOUR : DAY;
  return el("time", { datetime: date.toISOString(), title: WHOLE.format(date) }, format.format(date));
}

/** When the activity says it happened, or now. */
export function dateOf(activity) {
  const date = new Date(activity.timestamp ?? Date.now());
  return Number.isNaN(date.getTime()) ? new Date() : date;
}

export function sizeText(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1000 * 1000) return `${Math.round(bytes / 1000)} kB`;
  return `${(bytes / 1000 / 1000).toFixed(1)} MB`;
}

/** Copies, by way of a text field where there is no clipboard (plain http from another machine). */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = el("textarea", { class: "off-screen", "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}
