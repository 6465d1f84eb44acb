/** The models of this gateway, and which of them the page asks. Where there is only one, no call names any. */

import { call } from "./api.js";
import { keepChoice, readChoice } from "./memory.js";

let known = []; // { name, names, isDefault, isReady, version, entry }
let chosen = null; // a name; null where the gateway has one model

/** Return the models as they were last told: { name, names, isDefault, isReady, version, entry }, the default first. */
export const models = () => known;

/** Return the name of the chosen model; null where there is nothing to choose. */
export const chosenModel = () => chosen;

/** Return the chosen model as `models` has it; the only one where there is one; undefined where it is not served. */
export const currentModel = () => (chosen === null ? known[0] : known.find(({ names }) => names.includes(chosen)));

/** Return { model } for the JSON of a call; {} where there is nothing to choose. */
export const modelOption = () => (chosen === null ? {} : { model: chosen });

/** Return a path that asks about the chosen model. */
export const withModel = (path) => (chosen === null ? path : `${path}${path.includes("?") ? "&" : "?"}model=${encodeURIComponent(chosen)}`);

/**
 * Ask which models there are, and choose the one that was chosen last, else the default. A model that is gone stays
 * chosen: the user is told, and decides. Everyone is told by the document's "models".
 *
 * @throws {ApiError} The gateway does not say it.
 */
export async function readModels() {
  const { data } = await call("v1/models");
  const groups = new Map();
  for (const entry of data) {
    const key = entry.name ?? null; // only where there are several
    const group = groups.get(key) ?? {
      name: key ?? entry.id, names: [], isDefault: entry.default ?? true, isReady: entry.ready ?? true, version: entry.version ?? null, entry,
    };
    group.names.push(entry.id);
    groups.set(key, group);
  }
  known = [...groups.values()];
  if (!groups.has(null)) choose(chosen ?? readChoice("model") ?? known.find(({ isDefault }) => isDefault)?.name ?? known[0].name);
  document.dispatchEvent(new CustomEvent("models"));
}

/** Choose a model by a name: of the user, a link or the history. Everyone is told by the document's "model". */
export function chooseModel(name) {
  if (known.every(({ entry }) => !entry.name) && chosen === null && known.some(({ names }) => names.includes(name))) return;
  if (choose(name)) document.dispatchEvent(new CustomEvent("models"));
}

/** Return whether another model is chosen than before. */
function choose(given) {
  const name = known.find(({ names }) => names.includes(given))?.name ?? given;
  if (name === chosen) return false;
  chosen = name;
  keepChoice("model", name);
  document.dispatchEvent(new CustomEvent("model"));
  return true;
}

document.addEventListener("model-not-found", () => readModels().catch(() => {})); // one has gone: see which are left
