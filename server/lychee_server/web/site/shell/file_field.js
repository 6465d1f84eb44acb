/** A place for one file that is no image: dropped or chosen; its value is a File, or null. */

import { fill, h } from "./dom.js";

/**
 * @param {string} id Of the input.
 * @param {Saying} label What the file is.
 * @param {{ accept: string, drop: Saying, remove: Saying }} options What may be chosen, and what to say about it.
 */
export function fileField(id, label, { accept, drop, remove }) {
  let file = null;
  const input = h("input.sr-only", { id, type: "file", accept, on: { change: () => take(input.files[0]) } });
  const shown = h("div.preview");
  const element = h("div.field.file-field", {
    on: {
      dragover: (event) => event.preventDefault(),
      drop: (event) => {
        event.preventDefault();
        take(event.dataTransfer.files[0]);
      },
    },
  }, h("label", { for: id }, label), input, shown);
  const place = h("label.drop", { for: id }, drop);
  const clear = h("button.plain", { type: "button", aria: { label: remove }, on: { click: () => tell(null) } }, "✕");

  function take(given) {
    if (given) tell(given);
  }

  function tell(given) {
    write(given);
    element.dispatchEvent(new Event("change", { bubbles: true }));
  }

  function write(given) {
    file = given ?? null;
    input.value = "";
    fill(shown, file ? [h("span.file-name", { dir: "auto" }, file.name), clear] : place);
  }

  write(null);
  return { element, read: () => file, write };
}
