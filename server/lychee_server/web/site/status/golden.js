/** The golden pairs: whether they match, since when nobody knows, and a button that replays them. */

import { call } from "../shell/api.js";
import { fill, h } from "../shell/dom.js";
import { withModel } from "../shell/models.js";
import { alertOf, alertText } from "../shell/notices.js";
import { say } from "../shell/words.js";
import { figure, t, table, time } from "./facts.js";
import texts from "./texts.js";

const SYMBOLS = { never: "…", passed: "✓", failed: "✕", outdated: "?" };

/** @param {() => Promise<void>} refresh Asks for the status again. */
export function goldenCard(refresh) {
  const verdict = h("div", {});
  const pairs = h("div", {});
  const summary = h("summary", {});
  const details = h("details", {}, summary, pairs);
  const notice = h("div", { role: "status" });
  // aria-disabled and not disabled, which would take the focus away
  const again = h("button#status-check-again", { type: "button", on: { click: replay } }, say(texts.golden_again));
  let shown = null;

  async function replay() {
    if (again.getAttribute("aria-disabled")) return;
    again.setAttribute("aria-disabled", "true");
    fill(notice, say(texts.golden_running));
    try {
      await call(withModel("v1/golden-pairs"), { method: "POST" });
      fill(notice);
    } catch (error) {
      fill(notice, error.status === 429 ? alertText(say(texts.golden_too_soon)) : alertOf(error));
    } finally {
      again.removeAttribute("aria-disabled");
    }
    await refresh();
  }

  return {
    element: h("div.card.golden-card", {}, h("h2", {}, say(texts.golden)), verdict, details,
      h("div.actions", {}, again), notice, h("p.hint", {}, say(texts.golden_note))),
    update: (golden) => {
      const key = JSON.stringify([document.documentElement.lang, golden]);
      if (key === shown) return;
      shown = key;
      fill(verdict,
        h("p.golden", { data: { state: golden.state } },
          h("span", { aria: { hidden: "true" } }, SYMBOLS[golden.state]), " ", sentence(golden)),
        golden.checked_at && h("p.checked-at", {}, t("golden_at", { time: time(golden.checked_at) })));
      details.hidden = !golden.pairs.length;
      summary.textContent = t(golden.state === "outdated" ? "golden_pairs_then" : "golden_pairs");
      fill(pairs, table("pairs", ["golden_pair", "golden_expected", "golden_measured", "golden_error"].map((name) => t(name)),
        golden.pairs.map(({ expected, measured, abs_error: error }, index) => [
          figure(index + 1), figure(expected, 4), figure(measured, 4), error === null ? "–" : error.toExponential(1),
        ])));
    },
  };
}

function sentence({ state, lost_at: lostAt, pairs, max_abs_error: error, tolerance }) {
  if (state === "outdated") return lostAt ? t("golden_outdated", { time: time(lostAt) }) : t("golden_outdated_now");
  if (state === "never") return t("golden_never");
  return t(`golden_${state}`, { count: pairs.length, error: error === null ? "–" : Number(error.toPrecision(2)), tolerance });
}
