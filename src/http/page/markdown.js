// A tiny part of Markdown, built as nodes: bold, italic, code, links, line breaks. What is not
// understood stays as it was written.

import { el, LINKS, link, safeUrl } from "./dom.js";

// Bounded repetitions, so that a long text of half-open marks costs no more than its length.
const MARKS = new RegExp(
  [
    /\\(?<escaped>[\\`*_[\]()#~-])/,
    /(?<ticks>`{1,2})(?<code>[^`\n]{1,2000})\k<ticks>/,
    /\[(?<label>[^[\]\n]{1,500})\]\((?<target>[^\s()]{1,2000}(?:\([^\s()]{0,200}\)[^\s()]{0,500})?)(?:\s+"[^"\n]{0,200}")?\)/,
    /(?<stars>\*\*|__)(?=\S)(?<bold>[^\n]{0,2000}?\S)\k<stars>/,
    /(?<![\p{L}\p{N}])\*(?=[^\s*])(?<italic>[^*\n]{0,2000}?[^\s*]|[^\s*])\*(?!\*)/,
    /(?<![\p{L}\p{N}_])_(?=[^\s_])(?<slanted>[^_\n]{0,2000}?[^\s_]|[^\s_])_(?![\p{L}\p{N}_])/,
    /(?<bare>https?:\/\/[^\s<>"'`*]{1,2000}[^\s<>"'`*.,;:!?)\]])/,
  ]
    .map((part) => part.source)
    .join("|"),
  "gu",
);

/** The nodes of a text in Markdown. */
export function markdown(text) {
  const nodes = [];
  // Every second part is the inside of a fence.
  const parts = text.replace(/\r\n?/g, "\n").split(/(?:^|\n)```[^\n`]*\n([\s\S]*?)\n?```(?=\n|$)\n?/);
  parts.forEach((part, index) => {
    if (index % 2 === 1) nodes.push(el("pre", null, el("code", null, part)));
    else if (part !== "") nodes.push(...inline(part));
  });
  return nodes;
}

function inline(text, depth = 0) {
  if (depth > 4) return [text];
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(MARKS)) {
    if (match.index < end) continue;
    const node = nodeOf(match.groups, depth);
    if (node === null) continue;
    if (match.index > end) nodes.push(text.slice(end, match.index));
    nodes.push(node);
    end = match.index + match[0].length;
  }
  // Line breaks are kept by `white-space: pre-wrap`.
  if (end < text.length) nodes.push(text.slice(end));
  return nodes;
}

function nodeOf(groups, depth) {
  const { escaped, code, label, target, bold, italic, slanted, bare } = groups;
  if (escaped !== undefined) return document.createTextNode(escaped);
  if (code !== undefined) return el("code", null, code);
  if (label !== undefined) {
    const url = safeUrl(target, LINKS);
    return url === null ? null : link(url, ...inline(label, depth + 4));
  }
  if (bold !== undefined) return el("strong", null, ...inline(bold, depth + 1));
  if (italic !== undefined) return el("em", null, ...inline(italic, depth + 1));
  if (slanted !== undefined) return el("em", null, ...inline(slanted, depth + 1));
  const url = safeUrl(bare, LINKS);
  return url === null ? null : link(url, bare);
}

/** The nodes of `text` in the format that its activity names; Markdown when it names none. */
export function formatted(text, format) {
  return format === undefined || format === "markdown" ? markdown(text) : [text];
}
