/** The policy that this browser was given by a calibration: offered beside the gateway's own. */

import { policyField } from "../shell/fields.js";
import { recall, remember } from "../shell/memory.js";
import shellTexts from "../shell/texts.js";
import texts from "./texts.js";

const KEPT = "own-policy";
const NAME = "calibrated_here";
const CHANGED = "policies"; // an event of the document

shellTexts[`policy_${NAME}`] = texts.own_policy;

/** Keep thresholds as the page's own policy. */
export async function keepOwnPolicy({ accept, review }) {
  await remember(KEPT, { name: NAME, accept, review });
  policiesChanged();
}

/** Have every choice of a policy be made anew. */
export function policiesChanged() {
  document.dispatchEvent(new CustomEvent(CHANGED));
}

/** Return settings as GET /v1/settings has them, the page's own policy among them. */
export async function withOwnPolicy(settings) {
  const [known, own] = await Promise.all([settings(), recall(KEPT)]);
  return own ? { ...known, policies: [...known.policies, own] } : known;
}

/** A policyField that offers the page's own policy too, as soon as there is one. */
export function ownPolicyField(id, settings, onChange = () => {}) {
  const make = () => policyField(id, () => withOwnPolicy(settings), onChange);
  let field = make();
  const element = document.createElement("div");
  element.append(field.element);
  let chosen = false;
  element.addEventListener("input", () => { chosen = true; });
  document.addEventListener(CHANGED, () => {
    const value = field.read();
    field = make();
    element.replaceChildren(field.element);
    if (chosen) field.write(value);
  });
  return {
    element,
    read: () => field.read(),
    write: (value) => {
      chosen = true;
      field.write(value);
    },
  };
}
