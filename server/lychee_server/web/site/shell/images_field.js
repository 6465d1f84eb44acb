/** A place for many images: dropped, pasted or chosen; its value is a list of Files. */

import { fill, h } from "./dom.js";
import { IMAGE_TYPES, onImagesGiven, thumbnail } from "./fields.js";
import texts from "./texts.js";
import { say } from "./words.js";

export function imagesField(id, label) {
  let files = [];
  const shown = new Map(); // File -> its element, so that no picture is decoded twice
  const input = h("input.sr-only", { id, type: "file", multiple: true, accept: IMAGE_TYPES, on: { change: () => take([...input.files]) } });
  const list = h("ul.files");
  const clear = h("button.plain", { type: "button", on: { click: () => change([]) } }, say(texts.images_remove));
  const element = h("div.field.images-field", {}, h("label", { for: id }, label), input,
    h("div.preview", {}, h("label.drop", { for: id }, say(texts.images_drop))), list, clear);
  onImagesGiven(element, take);

  function take(given) {
    input.value = "";
    if (given.length) change([...files, ...given]);
  }

  function change(given) {
    write(given);
    element.dispatchEvent(new Event("change", { bubbles: true }));
  }

  function write(given) {
    files = given ?? [];
    for (const file of shown.keys()) if (!files.includes(file)) shown.delete(file);
    for (const file of files) if (!shown.has(file)) shown.set(file, show(file));
    fill(list, files.map((file) => shown.get(file)));
    list.hidden = !files.length;
    clear.hidden = files.length < 2;
  }

  function show(file) {
    return h("li", { data: { file: file.name } }, thumbnail(file), h("span.file-name", { title: file.name, dir: "auto" }, file.name),
      h("button.plain", {
        type: "button", aria: { label: say(texts.image_remove, { name: file.name }) },
        on: { click: () => {
          change(files.filter((each) => each !== file));
          input.focus();
        } },
      }, "✕"));
  }

  write([]);
  return { element, read: () => files, write };
}
