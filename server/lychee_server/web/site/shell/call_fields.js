/** A query and its documents, as a user writes them: texts one a line, and images. */

import { h } from "./dom.js";
import { imageField, textField } from "./fields.js";
import { imagesField } from "./images_field.js";
import texts from "./texts.js";
import { say } from "./words.js";

/** The fields of a call: { elements, read(), write({ query, documents }) }; a text may stand for a query or document. */
export function callFields(id) {
  const query = textField(`${id}-query`, say(texts.call_query), { rows: 2 });
  const queryImage = imageField(`${id}-query-image`, say(texts.call_query_image));
  const lines = textField(`${id}-documents`, say(texts.call_documents), { rows: 7, hint: say(texts.call_documents_hint) });
  const images = imagesField(`${id}-images`, say(texts.call_images));
  return {
    elements: [
      h("fieldset", {}, query.element, h("details", {}, h("summary", {}, say(texts.call_query_image)), queryImage.element)),
      h("fieldset", {}, lines.element, images.element),
    ],
    read: () => ({
      query: { text: query.read().trim(), image: queryImage.read() },
      documents: [
        ...lines.read().split("\n").map((line) => line.trim()).filter(Boolean).map((text) => ({ text })),
        ...images.read().map((image) => ({ image })),
      ],
    }),
    write: ({ query: asked = {}, documents = [] }) => {
      const given = asContent(asked);
      query.write(given.text);
      queryImage.write(given.image);
      const parts = documents.map(asContent);
      lines.write(parts.filter(({ image }) => !image).map(({ text }) => text.replace(/\s*\n\s*/g, " ")).join("\n"));
      images.write(parts.map(({ image }) => image).filter(Boolean));
    },
  };
}

/** Return a query or document as { text, image }. */
export function asContent(given) {
  return typeof given === "string" ? { text: given, image: null } : { text: given?.text ?? "", image: given?.image instanceof Blob ? given.image : null };
}
