/** One of the two variants: an instruction and a policy, or a ranking that was saved. */

import { fill, h } from "../shell/dom.js";
import { instructionField, policyField } from "../shell/fields.js";
import { fileField } from "../shell/file_field.js";
import { readHistory } from "../shell/memory.js";
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
  const element = h("fieldset.variant", { id }, h("legend", {}, say(texts.variant, { name })),
    h("div.field", {}, h("label", { for: `${id}-source` }, say(texts.source)), source), saved, pastPart, instruction.element, policy.element);

  function show() {
    saved.hidden = source.value !== "saved";
    pastPart.hidden = source.value !== "past";
    instruction.element.hidden = source.value !== "now";
    if (!pastPart.hidden) showPast();
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

  show();
  return {
    element,
    name,
    read: () => ({ source: source.value, instruction: instruction.read(), policy: policy.read(), file: file.read(), past: past.find(({ id: known }) => String(known) === pastSelect.value)?.state.results ?? null }),
    write: (value) => {
      source.value = value.source ?? "now";
      instruction.write(value.instruction);
      if (value.policy) policy.write(value.policy);
      file.write(value.file);
      show();
    },
  };
}
