/** One of the two variants: an instruction and a policy, or a ranking that was saved. */

import { fill, h } from "../shell/dom.js";
import { instructionField, policyField } from "../shell/fields.js";
import { fileField } from "../shell/file_field.js";
import { readHistory } from "../shell/memory.js";
import { chosenModel, currentModel, models } from "../shell/models.js";
import shared from "../shell/texts.js";
import { moment, say } from "../shell/words.js";
import texts from "./texts.js";

/** The fields of variant "A" or "B": { element, read(), write(value) }; the value can be cloned. */
export function variantField(name, settings, onPolicy) {
  const id = `compare-${name.toLowerCase()}`;
  const instruction = instructionField(`${id}-instruction`);
  const policy = policyField(`${id}-policy`, settings, onPolicy);
  const file = fileField(`${id}-file`, say(texts.saved), { accept: ".json,application/json", drop: say(texts.saved_drop), remove: say(texts.saved_remove) });
  const source = h("select", { id: `${id}-source`, on: { change: show } },
    h("option", { value: "now" }, say(texts.source_now)), h("option", { value: "past" }, say(texts.source_past)), h("option", { value: "saved" }, say(texts.source_saved)));
  let past = [];
  const pastSelect = h("select", { id: `${id}-past` });
  const pastNone = h("p.hint", {}, say(texts.past_none));
  const pastPart = h("div.field", {}, h("label", { for: `${id}-past` }, say(texts.past)), pastSelect, pastNone);
  const saved = h("div", {}, file.element);
  const model = h("select", { id: `${id}-model` });
  const modelPart = h("div.field", {}, h("label", { for: `${id}-model` }, say(shared.model)), model);
  document.addEventListener("models", offerModels);
  const element = h("fieldset.variant", { id }, h("legend", {}, say(texts.variant, { name })),
    h("div.field", {}, h("label", { for: `${id}-source` }, say(texts.source)), source), saved, pastPart, modelPart, instruction.element, policy.element);

  function show() {
    saved.hidden = source.value !== "saved";
    pastPart.hidden = source.value !== "past";
    instruction.element.hidden = source.value !== "now";
    modelPart.hidden = source.value !== "now" || chosenModel() === null;
    if (!pastPart.hidden) showPast();
  }

  /** Offer the gateway's models, and first the one that the page asks. */
  function offerModels() {
    const kept = model.value;
    fill(model, h("option", { value: "" }, say(texts.model_of_page, { name: () => currentModel()?.name ?? chosenModel() })),
      models().map(({ name: each }) => h("option", { value: each }, each)));
    model.value = models().some(({ name: each }) => each === kept) ? kept : "";
    show();
  }

  async function showPast() {
    const chosen = pastSelect.value;
    past = (await readHistory()).filter(({ tab, state }) => tab === "rank" && state.results?.whole?.results.length);
    const at = (time) => moment(time, { dateStyle: "short", timeStyle: "short" })();
    fill(pastSelect, past.map((each) => h("option", { value: each.id }, `${each.title} · ${each.note} · ${at(each.at)}`)));
    if (past.some(({ id: known }) => String(known) === chosen)) pastSelect.value = chosen;
    pastSelect.hidden = !past.length;
    pastNone.hidden = past.length > 0;
  }

  offerModels();
  return {
    element,
    name,
    read: () => ({ source: source.value, model: chosenModel() === null ? "" : model.value || chosenModel(), instruction: instruction.read(), policy: policy.read(), file: file.read(), past: past.find(({ id: known }) => String(known) === pastSelect.value)?.state.results ?? null }),
    write: (value) => {
      source.value = value.source ?? "now";
      model.value = models().some(({ name: each }) => each === value.model) && value.model !== chosenModel() ? value.model : "";
      instruction.write(value.instruction);
      if (value.policy) policy.write(value.policy);
      file.write(value.file);
      show();
    },
  };
}
