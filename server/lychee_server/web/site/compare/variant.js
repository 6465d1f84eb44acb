/** One of the two variants: an instruction and a policy, or a ranking that was saved. */

import { fileField } from "../batch/file_field.js";
import { ownPolicyField } from "../calibrate/own_policy.js";
import { h } from "../shell/dom.js";
import { instructionField } from "../shell/fields.js";
import { say } from "../shell/words.js";
import texts from "./texts.js";

/** The fields of variant "A" or "B": { element, read(), write(value) }; the value can be cloned. */
export function variantField(name, settings, onPolicy) {
  const id = `compare-${name.toLowerCase()}`;
  const instruction = instructionField(`${id}-instruction`);
  const policy = ownPolicyField(`${id}-policy`, settings, onPolicy);
  const file = fileField(`${id}-file`, say(texts.saved), { accept: ".json,application/json", drop: say(texts.saved_drop), remove: say(texts.saved_remove) });
  const source = h("select", { id: `${id}-source`, on: { change: show } },
    h("option", { value: "now" }, say(texts.source_now)), h("option", { value: "saved" }, say(texts.source_saved)));
  const saved = h("div", {}, file.element);
  const element = h("fieldset.variant", { id }, h("legend", {}, say(texts.variant, { name })),
    h("div.field", {}, h("label", { for: `${id}-source` }, say(texts.source)), source), saved, instruction.element, policy.element);

  function show() {
    saved.hidden = source.value === "now";
    instruction.element.hidden = !saved.hidden;
  }

  show();
  return {
    element,
    name,
    read: () => ({ source: source.value, instruction: instruction.read(), policy: policy.read(), file: file.read() }),
    write: (value) => {
      source.value = value.source ?? "now";
      instruction.write(value.instruction);
      if (value.policy) policy.write(value.policy);
      file.write(value.file);
      show();
    },
  };
}
