// Adaptive Cards in their simplest form: texts, facts, pictures, columns, inputs, and the actions
// Submit, OpenUrl and ShowCard. What is not known shows its fallback, or that it is not shown.

import { ACTIONS, el, link, MEDIA, safeUrl } from "./dom.js";
import { formatted } from "./markdown.js";

export function adaptiveCard(card, context) {
  const body = cardBody(card, context, []);
  if (body === null) {
    return el("div", { class: "card padded" }, formatted(card.fallbackText ?? "An Adaptive Card without content"));
  }
  return el("div", { class: "card adaptive" }, body);
}

/** `inputs` are those of the card around it: a Submit sends them too. */
function cardBody(card, context, inputs) {
  const scope = { context, inputs: [...inputs] };
  const elements = listOf(card.body).map((element) => elementNode(element, scope));
  const actions = actionRow(card.actions, scope);
  const nodes = [...elements, actions].filter((node) => node !== null);
  return nodes.length === 0 ? null : el("form", { class: "words", novalidate: true, onsubmit: stay }, nodes);
}

function stay(event) {
  event.preventDefault();
}

function listOf(value) {
  return Array.isArray(value) ? value.filter((element) => element !== null && typeof element === "object") : [];
}

const ELEMENTS = {
  ActionSet: (element, scope) => actionRow(element.actions, scope),
  Carousel: (element, scope) => group("container", listOf(element.pages), scope),
  CarouselPage: container,
  Column: container,
  ColumnSet: (element, scope) => group("columns", listOf(element.columns), scope, "Column"),
  Container: container,
  FactSet: (element) =>
    el(
      "dl",
      { class: "facts" },
      listOf(element.facts).map(({ title, value }) =>
        el("div", null, el("dt", null, formatted(title ?? "")), el("dd", null, formatted(String(value ?? "")))),
      ),
    ),
  Image: (element, scope) => {
    const url = safeUrl(element.url, MEDIA);
    if (url === null) return null;
    const size = ["small", "medium", "large"].includes(String(element.size).toLowerCase()) ? element.size.toLowerCase() : "auto";
    const person = String(element.style).toLowerCase() === "person" ? " person" : "";
    const image = el("img", { src: url, alt: element.altText ?? "", loading: "lazy", class: `image ${size}${person}` });
    return selectable(image, element, scope);
  },
  ImageSet: (element, scope) => group("images", listOf(element.images), scope, "Image"),
  Media: (element) => {
    const sources = listOf(element.sources).filter(({ url }) => safeUrl(url, MEDIA) !== null);
    if (sources.length === 0) return null;
    const sound = sources[0].mimeType?.startsWith("audio/");
    const nodes = sources.map(({ url, mimeType }) => el("source", { src: safeUrl(url, MEDIA), type: mimeType }));
    const poster = sound ? null : safeUrl(element.poster, MEDIA);
    return el(sound ? "audio" : "video", { controls: true, preload: "metadata", poster, class: "image auto" }, nodes);
  },
  RichTextBlock: (element, scope) =>
    el("p", null, (element.inlines ?? []).map((run) => textRun(run, scope))),
  Table: (element, scope) =>
    el(
      "table",
      null,
      listOf(element.rows).map((row, index) => {
        const tag = index === 0 && element.firstRowAsHeaders !== false ? "th" : "td";
        return el("tr", null, listOf(row.cells).map((cell) => el(tag, null, group("container", listOf(cell.items), scope))));
      }),
    ),
  TextBlock: (element) => el("p", { class: textClass(element) }, formatted(String(element.text ?? ""))),
  "Input.ChoiceSet": choices,
  "Input.Date": (element, scope) => field("date", element, scope),
  "Input.Number": (element, scope) => field("number", element, scope),
  "Input.Text": (element, scope) => field(element.style === "Email" ? "email" : "text", element, scope),
  "Input.Time": (element, scope) => field("time", element, scope),
  "Input.Toggle": toggle,
};

function elementNode(element, scope, usual) {
  if (element.isVisible === false) return null;
  const type = element.type ?? usual;
  if (Object.hasOwn(ELEMENTS, type)) {
    const node = ELEMENTS[type](element, scope);
    if (node !== null && element.separator === true) node.classList.add("separated");
    return node;
  }
  if (element.fallback === "drop") return null;
  if (element.fallback !== null && typeof element.fallback === "object") return elementNode(element.fallback, scope);
  return el("p", { class: "subtle" }, `${type}: not shown here`);
}

function group(className, elements, scope, usual) {
  const nodes = elements.map((element) => elementNode(element, scope, usual)).filter((node) => node !== null);
  return nodes.length === 0 ? null : el("div", { class: className }, nodes);
}

function container(element, scope) {
  const node = group("container", listOf(element.items), scope);
  if (node === null) return null;
  if (["auto", "stretch"].includes(element.width)) node.classList.add(element.width);
  if (["emphasis", "good", "warning", "attention", "accent"].includes(element.style)) node.classList.add("emphasis");
  return selectable(node, element, scope);
}

function selectable(node, { selectAction }, scope) {
  const run = selectAction ? runner(selectAction, scope) : null;
  if (run === null) return node;
  return el("button", { type: "button", class: "tap", title: selectAction.title, onclick: run }, node);
}

function textClass({ size, weight, color, isSubtle, style }) {
  const classes = [];
  const known = (value, names) => names.find((name) => name === String(value).toLowerCase());
  const sizeName = known(size, ["small", "medium", "large", "extralarge"]) ?? (style === "heading" ? "large" : undefined);
  if (sizeName) classes.push(`size-${sizeName}`);
  if (known(weight, ["bolder"]) || style === "heading") classes.push("bolder");
  const tone = known(color, ["accent", "good", "warning", "attention"]);
  if (tone) classes.push(`tone-${tone}`);
  if (isSubtle) classes.push("subtle");
  return classes.join(" ") || null;
}

function textRun(run, scope) {
  if (typeof run === "string") return run;
  if (run === null || typeof run !== "object") return null;
  const node = el(run.italic ? "em" : run.strikethrough ? "s" : "span", { class: textClass(run) }, String(run.text ?? ""));
  return run.selectAction ? selectable(node, run, scope) : node;
}

let fields = 0;

/** An input with its label; `read` gives what a Submit sends, `control` is what can be invalid. */
function labelled(element, scope, control, read, around = control) {
  const id = `input-${(fields += 1)}`;
  control.id = id;
  control.required = element.isRequired === true;
  scope.inputs.push({ id: element.id, read, control });
  const label = typeof element.label === "string" ? element.label : null;
  if (label === null) control.setAttribute("aria-label", element.placeholder ?? element.title ?? element.id ?? "input");
  const star = control.required ? el("span", { class: "tone-attention", "aria-hidden": "true" }, " *") : null;
  return el("div", { class: "field" }, label === null ? null : el("label", { for: id }, formatted(label), star), around);
}

function field(type, element, scope) {
  const many = type === "text" && element.isMultiline === true;
  const control = el(many ? "textarea" : "input", {
    type: many ? null : type,
    placeholder: element.placeholder,
    maxlength: element.maxLength > 0 ? element.maxLength : null,
    pattern: many ? null : element.regex,
    min: element.min,
    max: element.max,
    step: type === "number" ? "any" : null,
    rows: many ? 3 : null,
  });
  control.value = element.value ?? "";
  return labelled(element, scope, control, () => control.value);
}

function toggle(element, scope) {
  const on = String(element.valueOn ?? "true");
  const control = el("input", { type: "checkbox", checked: String(element.value) === on });
  const around = el("label", { class: "choice" }, control, el("span", null, formatted(element.title ?? "")));
  return labelled(element, scope, control, () => (control.checked ? on : String(element.valueOff ?? "false")), around);
}

function choices(element, scope) {
  const list = listOf(element.choices);
  const chosen = String(element.value ?? "").split(",");
  if (element.style !== "expanded" && element.isMultiSelect !== true) {
    const empty = el("option", { value: "" }, element.placeholder ?? "");
    const options = list.map(({ title, value }) => el("option", { value }, title ?? value));
    const control = el("select", null, empty, options);
    control.value = element.value ?? "";
    return labelled(element, scope, control, () => control.value);
  }
  const name = `choice-${(fields += 1)}`;
  const type = element.isMultiSelect === true ? "checkbox" : "radio";
  const controls = list.map(({ value }) => el("input", { type, name, value, checked: chosen.includes(String(value)) }));
  const rows = controls.map((control, index) => el("label", { class: "choice" }, control, el("span", null, list[index].title ?? "")));
  const read = () => controls.filter((control) => control.checked).map((control) => control.value).join(",");
  const label = element.label ?? element.placeholder ?? element.id;
  scope.inputs.push({ id: element.id, read, control: null });
  return el("fieldset", { class: "field" }, label ? el("legend", null, label) : null, rows);
}

function actionRow(actions, scope) {
  const list = listOf(actions);
  if (list.length === 0) return null;
  const row = el("div", { class: "buttons" });
  const below = el("div", { class: "below" });
  for (const action of list) row.append(...actionNodes(action, scope, below));
  return el("div", { class: "actions" }, row, below);
}

function actionNodes(action, scope, below) {
  const url = action.type === "Action.OpenUrl" ? safeUrl(action.url, ACTIONS) : null;
  const title = action.title ?? action.type;
  if (url !== null) {
    const node = link(url, title);
    node.className = "button";
    return [node];
  }
  if (action.type === "Action.ShowCard") {
    let shown = null;
    const button = el("button", { type: "button", class: "button", "aria-expanded": "false" }, title);
    button.addEventListener("click", () => {
      // Built once, so that what was filled in is there when it is shown again.
      shown ??= cardBody(action.card ?? {}, scope.context, scope.inputs);
      const open = shown !== null && !below.contains(shown);
      below.replaceChildren(...(open ? [shown] : []));
      for (const other of button.parentElement.children) other.removeAttribute("aria-expanded");
      button.setAttribute("aria-expanded", String(open));
    });
    return [button];
  }
  const run = runner(action, scope);
  if (run === null && action.fallback !== null && typeof action.fallback === "object") {
    return actionNodes(action.fallback, scope, below);
  }
  if (run === null && action.fallback === "drop") return [];
  const why = run === null ? `${action.type}: not carried out here` : null;
  return [el("button", { type: "button", class: "button", disabled: run === null, title: why, onclick: run }, title)];
}

/** What an action does when it is pressed; null when it is not known. */
function runner(action, { context, inputs }) {
  if (action.type === "Action.OpenUrl") {
    const url = safeUrl(action.url, ACTIONS);
    return url === null ? null : () => window.open(url, "_blank", "noopener,noreferrer");
  }
  if (action.type !== "Action.Submit") return null;
  return () => {
    const asked = action.associatedInputs === "none" ? [] : inputs;
    for (const { control } of asked) {
      if (control?.isConnected && !control.reportValidity()) return;
    }
    // A text is what the user would have typed; everything else goes as a value.
    if (typeof action.data === "string" && asked.length === 0) {
      context.post({ text: action.data, channelData: { postBack: true } });
      return;
    }
    const data = action.data !== null && typeof action.data === "object" ? action.data : {};
    const value = { ...data };
    for (const { id, read } of asked) if (id !== undefined) value[id] = read();
    context.post({ value, channelData: { postBack: true } });
  };
}
