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

/** All models of the gateway in short, where it has several; the cards below are about the chosen one. */
export function servedCard() {
  return card("served", say(texts.served), (served, chosen) => [
    table("served-models", ["col_model", "col_state", "col_id", "col_version"].map((name) => t(name)), served.map((each) => [
      [each.name === chosen ? h("strong", {}, each.name) : each.name, each.isDefault && h("small", {}, ` (${t("policy_default")})`)],
      state({ ready: each.isReady, reason: null }), each.root, each.version === null ? "–" : String(each.version),
    ])),
    h("p.hint", {}, t("served_note", { name: chosen })),
  ]);
}

/** The Tritons among which the gateway spreads its requests. */
export function replicasCard() {
  return card("replicas", say(texts.replicas), (replicas) => table("replicas", ["col_address", "col_state"].map((name) => t(name)),
    replicas.map(({ address, state: how, reason }) => [address, [
      h("span", { aria: { hidden: "true" } }, how === "live" ? "✓ " : "✕ "), texts[`replica_${how}`] ? t(`replica_${how}`) : t("state_not_ready"),
      reason && h("small.reason", { lang: "en" }, reason),
    ]])));
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
