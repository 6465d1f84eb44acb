/** A query and its documents, as a user writes them: texts one a line, and images. */

import { fill, h } from "../shell/dom.js";
import { imageField, textField, thumbnail } from "../shell/fields.js";
import { say } from "../shell/words.js";
import texts from "./texts.js";

/** The fields of a call: { elements, read(), write({ query, documents }) }. */
export function callFields(id) {
  const query = textField(`${id}-query`, say(texts.query), { rows: 2 });
  const queryImage = imageField(`${id}-query-image`, say(texts.query_image));
  const lines = textField(`${id}-documents`, say(texts.documents), { rows: 8, hint: say(texts.documents_hint) });
  const images = imagesField(`${id}-images`);
  return {
    elements: [query.element, h("details", {}, h("summary", {}, say(texts.query_image)), queryImage.element), lines.element, images.element],
    read: () => ({
      query: compact({ text: query.read().trim(), image: queryImage.read() }),
      documents: [
        ...lines.read().split("\n").map((line) => line.trim()).filter(Boolean).map((text) => ({ text })),
        ...images.read().map((image) => ({ image })),
      ],
    }),
    write: ({ query: asked = {}, documents = [] }) => {
      const given = typeof asked === "string" ? { text: asked } : asked;
      query.write(given.text);
      queryImage.write(given.image);
      const parts = documents.map((each) => (typeof each === "string" ? { text: each } : each));
      lines.write(parts.filter(({ image }) => !image).map(({ text }) => text.replaceAll("\n", " ")).join("\n"));
      images.write(parts.map(({ image }) => image).filter(Boolean));
    },
  };
}

/** Several images; the value is a list of Files. */
function imagesField(id) {
  let files = [];
  const input = h("input.sr-only", { id, type: "file", accept: "image/*,.heic,.heif,.avif,.tif,.tiff", multiple: true, on: { change: () => add(input.files) } });
  const shown = h("div.chosen-images");
  const element = h("div.field.image-field", {
    on: {
      dragover: (event) => event.preventDefault(),
      drop: (event) => {
        event.preventDefault();
        add(event.dataTransfer.files);
      },
    },
  }, h("label", { for: id }, say(texts.images)), input, h("div.preview", {}, h("label.drop", { for: id }, say(texts.images_drop))), shown);

  function add(list) {
    write([...files, ...list]);
    element.dispatchEvent(new Event("change", { bubbles: true }));
  }

  function write(list) {
    files = [...list];
    input.value = "";
    fill(shown, files.map((file) => h("span.chosen-image", {}, thumbnail(file), h("button.plain", {
      type: "button", aria: { label: say(texts.image_remove, { name: file.name }) },
      on: { click: () => {
        write(files.filter((each) => each !== file));
        element.dispatchEvent(new Event("change", { bubbles: true }));
      } },
    }, "✕"))));
  }

  return { element, read: () => files, write };
}

function compact({ text, image }) {
  return image ? { text, image } : { text };
}
