/** Policies and limits: the gateway's, and the policy that a calibration gave this browser. */

import { call } from "./api.js";
import { recall, remember } from "./memory.js";
import { chosenModel, withModel } from "./models.js";

const KEPT = "own-policy";
const NAME = "calibrated_here";

let known = null;

/** Return GET /v1/settings, asked for once, with the browser's own policy among the others. */
export async function settings() {
  known ??= call(withModel("v1/settings")).catch((error) => {
    known = null;
    throw error;
  });
  const [given, own] = await Promise.all([known, recall(keptUnder())]);
  return own ? { ...given, policies: [...given.policies, own] } : given;
}

/** Keep thresholds as the browser's own policy. */
export async function keepOwnPolicy({ accept, review }) {
  await remember(keptUnder(), { name: NAME, accept, review });
  settingsChanged();
}

/** Thresholds belong to a model. */
const keptUnder = () => (chosenModel() === null ? KEPT : `${KEPT}-${chosenModel()}`);

document.addEventListener("model", settingsChanged);

/** Have everyone who shows policies ask again: they listen to the document's "settings". */
export function settingsChanged() {
  known = null;
  document.dispatchEvent(new CustomEvent("settings"));
}
