/** One calibration: the threshold, how far to trust it, its curve, and what other thresholds do. */

import { save } from "../shell/csv.js";
import { h } from "../shell/dom.js";
import { locale, number, say, sayMessage } from "../shell/words.js";
import { chart } from "./chart.js";
import { listOfSkipped, sayDoubt } from "./problems.js";
import texts from "./texts.js";

const SHORT_REVISION = 12;

/** Return two cards that show an outcome of POST /v1/calibrations: the threshold, and what lies behind it. */
export function showOutcome(outcome) {
  const { calibration } = outcome;
  const curve = chart(outcome.curve, calibration);
  return [
    h("div.card", {}, verdict(calibration), facts(outcome), doubts(outcome), downloads(calibration, curve)),
    h("div.card", {}, curve.element, table(outcome), listOfSkipped(outcome.skipped),
      h("p.hint", { dir: "auto" }, provenance(calibration), (outcome.table_notes ?? []).map(({ message }) => [" ", sayMessage(message)]))),
  ];
}

/** A threshold for people: where a model is sure, scores differ in their last digits only. */
export const threshold = (value) => number(value, value < 0.9999 ? 4 : 8);

function verdict(calibration) {
  const low = 100 * calibration.threshold_low;
  const shown = threshold(calibration.threshold);
  const percent = () => new Intl.NumberFormat(locale(), { style: "percent" }).format(calibration.confidence);
  return h("div.found", { role: "status" },
    h("h2", {}, say(texts.threshold)),
    h("p.big", {}, say(["{value}", "{value}"], { value: shown })),
    h("p", {}, say(texts.for_target, { target: calibration.target })),
    h("div.scale", {
      role: "img", aria: { label: say(texts.scale, { threshold: shown }) },
      style: { "--low": `${low}%`, "--width": `${Math.max(0.5, 100 * calibration.threshold_high - low)}%`, "--at": `${100 * calibration.threshold}%` },
    }, h("span.interval"), h("span.mark")),
    h("p.hint", {}, say(texts.interval, {
      confidence: percent, low: threshold(calibration.threshold_low), high: threshold(calibration.threshold_high),
    })));
}

function facts({ calibration, average_precision, precision_low, pairs_for_half_width }) {
  const fact = (name, value, note = null) => h("div", {}, h("dt", {}, say(name)), h("dd", {}, h("span.number", {}, value), note && h("small", {}, note)));
  const share = (value) => say(["{value}", "{value}"], { value: number(value, 3) });
  return h("dl.figures-of", {},
    fact(texts.precision, share(calibration.precision), say(texts.precision_low, { low: number(precision_low, 3) })),
    fact(texts.recall, share(calibration.recall)),
    fact(texts.f1, share(calibration.f1)),
    fact(texts.average_precision, share(average_precision)),
    fact(texts.pairs, String(calibration.pairs), say(texts.pairs_of, { positives: calibration.positives, queries: calibration.queries })),
    fact(texts.half_width, say(texts.half_width_pairs, { pairs: number(pairs_for_half_width) })));
}

function doubts({ doubts: list, notes }) {
  if (!list.length && !notes.length) return null;
  return h("div.warnings", {}, h("h3", {}, say(texts.doubts)), h("ul", {},
    list.map((doubt) => h("li", {}, sayDoubt(doubt))),
    notes.map((note) => h("li", { lang: "en" }, note))));
}

function downloads(calibration, curve) {
  const file = `${JSON.stringify(calibration, null, 2)}\n`;
  return h("div.actions", {},
    h("button#calibrate-save", { type: "button", on: { click: () => save("calibration.json", "application/json", file) } }, say(texts.download)),
    h("button#calibrate-save-picture", { type: "button", on: { click: () => save("calibration.svg", "image/svg+xml", curve.toSvg()) } }, say(texts.download_picture)));
}

function table({ table: rows, calibration }) {
  return h("details", {}, h("summary", {}, say(texts.table)), h("div.scroll", { tabindex: 0 }, h("table.figures", {},
    h("thead", {}, h("tr", {}, [texts.threshold_short, texts.table_accepted, texts.precision, texts.recall, texts.f1].map((name) =>
      h("th", { scope: "col" }, say(name))))),
    h("tbody", {}, rows.map((row) => {
      const chosen = row.threshold === calibration.threshold;
      return h(chosen ? "tr.chosen" : "tr", {},
        h("th", { scope: "row" }, chosen ? say(texts.table_chosen, { threshold: threshold(row.threshold) }) : row.threshold.toFixed(2)),
        h("td", {}, row.accepted),
        [row.precision, row.recall, row.f1].map((value) => h("td", {}, value === null ? "–" : value.toFixed(3))));
    })))));
}

function provenance({ model, instruction }) {
  return say(texts.provenance, {
    model: model.model_id, revision: model.revision.slice(0, SHORT_REVISION), precision: model.precision,
    instruction: instruction ?? say(texts.no_instruction),
  });
}
