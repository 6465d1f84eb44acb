/** The documents of the form: texts, images, and how the two belong together. */

import { h } from "../shell/dom.js";
import { textField } from "../shell/fields.js";
import { imagesField } from "../shell/images_field.js";
import { say } from "../shell/words.js";
import texts from "./texts.js";

export const SEPARATE = "separate";
export const PAIRS = "pairs";

/** The fields of documents: { element, read(), write(value) }; the value is { texts, images, combination }. */
export function documentsField() {
  const text = textField("rank-texts", say(texts.texts), {
    rows: 8, placeholder: say(texts.texts_placeholder), hint: say(texts.texts_hint),
  });
  const images = imagesField("rank-images", say(texts.images));
  const radio = (value) => h("label.radio", {}, h("input", { type: "radio", name: "rank-combination", value }), say(texts[value]));
  const combination = h("div.field#rank-combination", { role: "radiogroup", aria: { label: say(texts.combination) } },
    h("span.hint", {}, say(texts.combination)), h("div.radios", {}, radio(SEPARATE), radio(PAIRS)));
  const element = h("fieldset", {}, h("legend", {}, say(texts.documents)), text.element, images.element, combination);
  images.element.addEventListener("change", hide);

  function hide() {
    combination.hidden = !images.read().length;
  }

  function write(value) {
    text.write(typeof value?.texts === "string" ? value.texts : "");
    images.write((value?.images ?? []).filter((each) => each instanceof Blob));
    for (const each of combination.querySelectorAll("input")) {
      each.checked = each.value === (value?.combination === PAIRS ? PAIRS : SEPARATE);
    }
    hide();
  }

  write(null);
  return {
    element,
    read: () => ({
      texts: text.read(), images: images.read(),
      combination: combination.querySelector("input:checked")?.value ?? SEPARATE,
    }),
    write,
  };
}

/**
 * Return the documents that a form describes: { text, image } each.
 *
 * @returns {Object} { documents }, or { problem: Saying } where texts and images make no pairs.
 */
export function makeDocuments({ texts: text, images, combination }) {
  const blocks = cut(text);
  if (combination === PAIRS && images.length) {
    if (blocks.length !== images.length) {
      return { problem: say(texts.unpaired, { texts: blocks.length, images: images.length }) };
    }
    return { documents: blocks.map((each, index) => ({ text: each, image: images[index] })) };
  }
  return { documents: [...blocks.map((each) => ({ text: each, image: null })), ...images.map((image) => ({ text: "", image }))] };
}

/** Cut a text into blocks between lines of dashes; without those, into lines. Empty ones do not count. */
function cut(text) {
  const lines = text.split(/\r?\n/);
  const isBorder = (line) => /^\s*-{3,}\s*$/.test(line);
  if (!lines.some(isBorder)) return lines.map((line) => line.trim()).filter(Boolean);
  const blocks = [[]];
  for (const line of lines) {
    if (isBorder(line)) blocks.push([]);
    else blocks.at(-1).push(line);
  }
  return blocks.map((each) => each.join("\n").trim()).filter(Boolean);
}
