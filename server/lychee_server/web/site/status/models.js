/** What really runs: each model on Triton, what executes it, on which device and why. */

import { h } from "../shell/dom.js";
import { say } from "../shell/words.js";
import { card, facts, figure, t, table } from "./facts.js";
import texts from "./texts.js";

const COLUMNS = ["col_model", "col_state", "col_execution", "col_device", "col_requests", "col_queue", "col_compute"];

export function modelsCard() {
  return card("models-card", say(texts.models), (model, models) => {
    if (!models.length) return h("p", {}, t("models_away"));
    return [
      model && facts([
        [t("model_id"), model.model_id], [t("revision"), model.revision.slice(0, 12)],
        [t("family"), model.family], [t("precision"), model.precision],
      ]),
      table("models", COLUMNS.map((name) => t(name)), models.map((each) => [
        [each.name, each.version && h("small", {}, ` ${each.version}`)],
        state(each),
        execution(each),
        each.device ? t(`device_${each.device}`) : "–",
        figure(each.requests),
        figure(each.queue_ms, 1),
        figure(each.compute_ms, 1),
      ])),
      h("p.hint", {}, t("models_note")),
    ];
  });
}

function state({ ready, reason }) {
  return [
    h("span", { aria: { hidden: "true" } }, ready ? "✓ " : "✕ "), t(ready ? "state_ready" : "state_not_ready"),
    reason && h("small.reason", { lang: "en" }, reason),
  ];
}

function execution({ provider, precision, chosen_because: reason }) {
  if (!provider) return h("span.muted", {}, t("passes_on"));
  return [`${provider} ${precision ?? t("precision_unknown")}`, reason && h("small.reason", { lang: "en" }, reason)];
}
