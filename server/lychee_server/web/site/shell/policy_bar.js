/** The policy beside results: one line that says which, and the sliders behind it. */

import { fill, h } from "./dom.js";
import { policyField } from "./fields.js";
import { policyName } from "./scores.js";
import texts from "./texts.js";
import { say } from "./words.js";

/** The same interface as policyField; `onChange` hears also when the gateway's default arrives. */
export function policyBar(id, settings, onChange) {
  const name = h("span.policy-name");
  const field = policyField(id, settings, update);
  const element = h("details.policy-bar", { id }, h("summary", {}, name),
    field.element, h("p.hint", {}, say(texts.policy_why)));
  settings().then(update, () => {});
  document.addEventListener("settings", () => settings().then(update, () => {}));

  function update() {
    describe();
    onChange(field.read());
  }

  function describe() {
    const { name: chosen, accept, review } = field.read();
    fill(name, say(review < accept ? texts.policy_bar_review : texts.policy_bar, {
      name: policyName(chosen), accept: accept.toFixed(2), review: review.toFixed(2),
    }));
  }

  describe();
  return {
    element,
    read: field.read,
    write: (value) => {
      if (!isPolicy(value)) return;
      field.write(value);
      describe();
    },
  };
}

const isPolicy = (value) => [value?.accept, value?.review].every((each) => each >= 0 && each <= 1);
