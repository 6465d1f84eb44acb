/** The last errors of the gateway's log, and of Triton's where it runs on the same machine. */

import { h } from "../shell/dom.js";
import { say } from "../shell/words.js";
import { card, t, time } from "./facts.js";
import texts from "./texts.js";

const SHOWN = 10;

export function errorsCard() {
  return card("errors-card", say(texts.errors), ({ gateway, triton }) => [
    h("h3", {}, t("errors_gateway")),
    gateway.length ? h("ol.errors", {}, gateway.slice(0, SHOWN).map(entry)) : h("p.hint", {}, t("errors_none")),
    h("h3", {}, t("errors_triton")),
    triton === null
      ? h("p.hint", {}, t("errors_elsewhere"))
      : triton.length
        ? h("ol.errors", {}, triton.map((line) => h("li", { lang: "en" }, h("code", {}, line))))
        : h("p.hint", {}, t("errors_triton_none")),
  ]);
}

function entry(error) {
  const about = [error.route, error.status, error.request_id && t("error_request", { id: error.request_id })];
  return h("li", {},
    h("p", {}, h("time", {}, time(error.time)), " ", h("span.level", {}, error.level), " ",
      h("span", { lang: "en" }, error.message)),
    error.detail && h("p", { lang: "en" }, error.detail),
    about.some(Boolean) && h("p.hint", {}, about.filter(Boolean).join(" · ")));
}
