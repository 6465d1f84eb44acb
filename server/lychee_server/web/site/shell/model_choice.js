/** The chooser of the model in the header; nothing of it is visible where the gateway has one model. */

import { fill, h } from "./dom.js";
import { chooseModel, chosenModel, currentModel, models, readModels } from "./models.js";
import texts from "./texts.js";
import { say } from "./words.js";

/** Return { choice, note }: the labelled select, and what says that the chosen model is not served. */
export function modelChoice() {
  const select = h("select#model", { on: { change: () => chooseModel(select.value) } });
  const choice = h("div.model-choice", { hidden: true }, h("label", { for: "model" }, say(texts.model)), select);
  const note = h("div#model-note", { role: "alert" });
  let shown = "";

  function show() {
    const chosen = chosenModel();
    choice.hidden = chosen === null;
    if (chosen === null) return;
    const key = JSON.stringify([chosen, models().map(({ name, isReady, isDefault }) => [name, isReady, isDefault])]);
    if (key === shown) return;
    shown = key;
    const isGone = !currentModel();
    fill(select, models().map(({ name, isReady, isDefault }) => h("option", { value: name },
      isReady ? say(isDefault ? texts.model_default : texts.model_name, { name }) : say(texts.model_away, { name }))),
    isGone ? h("option", { value: chosen }, say(texts.model_gone, { name: chosen })) : null);
    select.value = chosen;
    fill(note, isGone ? h("p", {}, say(texts.model_gone_why, { name: chosen })) : null);
    note.classList.toggle("alert", isGone);
  }

  document.addEventListener("models", show);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && chosenModel() !== null) readModels().catch(() => {});
  });
  show();
  return { choice, note };
}
