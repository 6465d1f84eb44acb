/** Buttons that copy: a text, or a link to what a tab shows. */

import { h } from "./dom.js";
import { makeLink } from "./link.js";
import { modelOption } from "./models.js";
import texts from "./texts.js";
import { say } from "./words.js";

const SAID_MS = 2500;

/** A button that copies the text that `read` returns or promises, and says that it did. */
export function copyButton(label, read) {
  const said = h("span.hint", { role: "status" });
  const button = h("button", { type: "button", on: { click: async () => {
    const done = await copy(await read());
    said.replaceChildren(h("span", {}, say(done ? texts.copied : texts.not_copied)));
    setTimeout(() => said.replaceChildren(), SAID_MS);
  } } }, label);
  return h("span.copying", {}, button, said);
}

/** A button that copies a link to a tab; `read` returns its state without images, as JSON takes it. */
export function shareButton(tab, read) {
  const element = copyButton(say(texts.share), () => makeLink(tab, { ...read(), ...modelOption() }));
  element.firstChild.setAttribute("aria-describedby", `share-${tab}`);
  element.append(h("span.hint.share-why", { id: `share-${tab}` }, say(texts.share_why)));
  return element;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // without https there is no clipboard to write to
  }
}

function copyBySelection(text) {
  const area = h("textarea.sr-only", { value: text, aria: { hidden: "true" } });
  const before = document.activeElement;
  (before?.closest("dialog") ?? document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus({ preventScroll: true });
  return done;
}
