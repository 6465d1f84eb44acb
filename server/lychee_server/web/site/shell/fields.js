/** The fields that tabs share: text, image, instruction, policy. Each returns { element, read(), write(value) }. */

import { call } from "./api.js";
import { fill, h } from "./dom.js";
import { currentModel, models, readModels } from "./models.js";
import { policyName } from "./scores.js";
import texts from "./texts.js";
import { language, say } from "./words.js";

export const IMAGE_TYPES = "image/*,.heic,.heif,.avif,.tif,.tiff,.bmp,.webp";

/** A text area under its label. */
export function textField(id, label, { rows = 3, placeholder = null, hint = null } = {}) {
  const area = h("textarea", { id, rows, placeholder, dir: "auto", spellcheck: "false", aria: { describedby: hint && `${id}-hint` } });
  const element = h("div.field", {},
    h("label", { for: id }, label), area, hint && h("p.hint", { id: `${id}-hint` }, hint));
  return {
    element,
    read: () => area.value,
    write: (value) => {
      area.value = value ?? "";
    },
  };
}

/** A place for one image: dropped, pasted or chosen; its value is a File, or null. */
export function imageField(id, label = say(texts.image)) {
  let file = null;
  const input = h("input.sr-only", { id, type: "file", accept: IMAGE_TYPES, on: { change: () => take(input.files[0]) } });
  const shown = h("div.preview");
  const element = h("div.field.image-field", {}, h("label", { for: id }, label), input, shown);
  onImagesGiven(element, ([given]) => take(given));
  const drop = h("label.drop", { for: id }, say(texts.image_drop));

  function take(given) {
    if (!given) return;
    write(given);
    element.dispatchEvent(new Event("change", { bubbles: true }));
  }

  function write(given) {
    file = given ?? null;
    input.value = "";
    if (!file) fill(shown, drop);
    else {
      fill(shown, thumbnail(file), h("span.file-name", { title: file.name, dir: "auto" }, file.name), h("button.plain", {
        type: "button", aria: { label: say(texts.image_remove, { name: file.name }) },
        on: { click: () => {
          write(null);
          input.focus();
          element.dispatchEvent(new Event("change", { bubbles: true }));
        } },
      }, "✕"));
    }
  }

  write(null);
  return { element, read: () => file, write };
}

/** Have a field take images that are dropped on it, or pasted anywhere in its fieldset. */
export function onImagesGiven(element, take) {
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    take([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])].filter(({ type }) => type.startsWith("image/"));
    if (!files.length || !element.closest("fieldset")?.contains(event.target)) return;
    event.preventDefault();
    take(files);
  });
}

/** A small picture of a file; where the browser cannot show it, a sign that says so, never a broken image. */
export function thumbnail(file) {
  const url = URL.createObjectURL(file);
  const picture = h("img.thumbnail", { src: url, alt: file.name, decoding: "async" });
  picture.addEventListener("load", () => URL.revokeObjectURL(url));
  picture.addEventListener("error", () => {
    URL.revokeObjectURL(url);
    picture.replaceWith(h("span.no-picture", { role: "img", aria: { label: say(texts.image_no_preview) }, title: say(texts.image_no_preview) }, "?"));
  });
  return picture;
}

/** The instruction: a preset or the user's own text; its value is the text, "" for the model's default. */
export function instructionField(id) {
  const preset = h("select", { id: `${id}-preset`, on: { change: choose } });
  const area = h("textarea", { id, rows: 2, dir: "auto", maxlength: 1000, aria: { describedby: `${id}-note` } });
  const note = h("p.hint", { id: `${id}-note` });
  const element = h("details", {}, h("summary", {}, say(texts.instruction)), h("div.field", {},
    h("label", { for: `${id}-preset` }, say(texts.instruction_preset)), preset,
    h("label", { for: id }, say(texts.instruction_text)), area, note));
  let presets = [];

  area.addEventListener("input", recognise);
  document.addEventListener("language", choose);
  document.addEventListener("models", describe);
  load();

  async function load() {
    const [list] = await Promise.all([call("v1/instructions"), models().length ? null : readModels()]).catch(() => [null]);
    if (!list) return;
    presets = list.data;
    fill(preset, presets.map(({ name }) =>
      h("option", { value: name }, texts[`preset_${name}`] ? say(texts[`preset_${name}`]) : name)),
    h("option", { value: "" }, say(texts.instruction_own)));
    describe();
    recognise();
  }

  function describe() {
    const model = currentModel()?.entry;
    fill(note, !model ? null : model.reads_instruction
      ? say(texts.instruction_default, { default: model.default_instruction })
      : say(texts.instruction_none, { model: model.root }));
  }

  function textOf({ texts: each }) {
    return each[language()] ?? Object.values(each)[0] ?? "";
  }

  function choose() {
    const chosen = presets.find(({ name }) => name === preset.value);
    if (chosen) area.value = textOf(chosen);
  }

  /** Name the preset whose text stands there; a text that was edited is the user's own. */
  function recognise() {
    const known = presets.find((each) => [textOf(each), ...Object.values(each.texts)].includes(area.value.trim()));
    preset.value = known?.name ?? "";
  }

  return {
    element,
    read: () => area.value.trim(),
    write: (value) => {
      area.value = value ?? "";
      if (area.value) element.open = true;
      recognise();
    },
  };
}

/**
 * The policy, with two sliders under it; its value is { name, accept, review }.
 *
 * @param {string} id
 * @param {() => Promise<Object>} settings Returns GET /v1/settings.
 * @param {(policy: Object) => void} onChange Is told of every move.
 */
export function policyField(id, settings, onChange = () => {}) {
  let value = { name: "balanced", accept: 0.55, review: 0.55 };
  const radios = h("div.radios", { role: "radiogroup", aria: { label: say(texts.policy) } });
  const sliders = { accept: slider("accept"), review: slider("review") };
  const element = h("div.field.policy", {}, radios, sliders.accept.element, sliders.review.element);
  document.addEventListener("settings", offer);

  async function offer() {
    const found = await settings().catch(() => null);
    if (!found) return;
    const { policies, default_policy: first } = found;
    fill(radios, [...policies, { name: "custom" }].map((policy) => h("label.radio", {},
      h("input", { type: "radio", name: id, value: policy.name, on: { change: () => pick(policy) } }),
      policyName(policy.name))));
    const isChosen = value.chosen;
    write(isChosen ? value : policies.find(({ name }) => name === first) ?? value);
    value.chosen = isChosen;
  }

  function slider(name) {
    const output = h("output", { for: `${id}-${name}` });
    const input = h("input", {
      type: "range", id: `${id}-${name}`, min: 0, max: 1, step: 0.01,
      on: { input: () => move(name, Number(input.value)) },
    });
    return {
      element: h("div.slider", {}, h("label", { for: `${id}-${name}` }, say(texts[`${name}_from`])), input, output),
      write: (number) => {
        input.value = number;
        output.textContent = number.toFixed(2);
        input.style.setProperty("--at", number);
      },
    };
  }

  function move(name, number) {
    const other = name === "accept" ? { review: Math.min(value.review, number) } : { accept: Math.max(value.accept, number) };
    write({ ...value, ...other, [name]: number, name: "custom" });
    onChange(value);
  }

  function pick(policy) {
    write({ ...value, ...policy });
    onChange(value);
  }

  function write(given) {
    value = { name: given.name ?? "custom", accept: given.accept, review: given.review ?? given.accept, chosen: true };
    for (const radio of radios.querySelectorAll("input")) radio.checked = radio.value === value.name;
    sliders.accept.write(value.accept);
    sliders.review.write(value.review);
  }

  write(value);
  value.chosen = false;
  offer();
  return { element, read: () => ({ name: value.name, accept: value.accept, review: value.review }), write };
}
