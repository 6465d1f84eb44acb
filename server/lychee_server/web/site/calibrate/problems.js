/** What is wrong with labelled pairs, in the reader's language. */

import { h } from "../shell/dom.js";
import { locale, number, say, sayMessage } from "../shell/words.js";
import texts from "./texts.js";

const DIGITS = { precision: 3, precision_low: 3, after: 3, before: 3 };

/** An alert for a Problem, with the rows that may be the cause. */
export function alertOfProblem({ kind, values, message, wording, skipped }) {
  const known = texts[`problem_${kind}`] ?? texts[`doubt_${kind}`];
  return [
    h("div.alert", { role: "alert" },
      h("p", {}, say(known ?? texts.problem_other, shown(values))),
      wording ? h("p.detail", { dir: "auto" }, sayMessage(wording))
        : known && kind !== "invalid_input" && kind !== "invalid_request" ? null : h("p.detail", { lang: "en" }, message)),
    skipped?.rows ? listOfSkipped(skipped, true) : null,
  ];
}

/** One doubt about a calibration, as a Saying; its English message where this page has no words for it. */
export function sayDoubt({ kind, values, message }) {
  const known = texts[`doubt_${kind}`];
  return known ? say(known, shown(values)) : h("span", { lang: "en" }, message);
}

/** The rows that did not count, by reason. */
export function listOfSkipped({ rows, reasons, further }, isOpen = false) {
  if (!rows) return null;
  return h("details.skipped", { open: isOpen },
    h("summary", {}, say(texts.skipped, { count: number(rows) })),
    h("div.scroll", { tabindex: 0 }, h("table.reasons", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, say(texts.row)), h("th", { scope: "col" }, say(texts.reason)))),
      h("tbody", {}, reasons.map((each) => h("tr", {},
        h("td.number", {}, listRows(each.rows)), h("td", { dir: "auto" }, each.wording ? sayMessage(each.wording) : each.reason)))))),
    further ? h("p.hint", {}, say(texts.more_reasons, { count: number(further) })) : null);
}

function listRows(rows) {
  const few = rows.slice(0, 5).join(", ");
  return rows.length > 5 ? say(texts.rows_more, { few, count: number(rows.length - 5) }) : few;
}

/** Return values that show numbers as the reader writes them. */
function shown(values) {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => {
    if (name === "share") return [name, () => new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: 1 }).format(value)];
    return [name, typeof value === "number" ? number(value, DIGITS[name] ?? 0) : value];
  }));
}
