/** The rows of a batch, the first of them: a table of thousands would stop the page. */

import { fill, h } from "../shell/dom.js";
import { badge } from "../shell/scores.js";
import { number, say } from "../shell/words.js";
import texts from "./texts.js";

const SHOWN = 50;
const MAX_CHARACTERS = 300;

/** { element, show(table, results), clear() }; `results` are those of the rows, null where there is none yet. */
export function rowsTable() {
  let shown = SHOWN;
  let last = null;
  const head = h("thead");
  const body = h("tbody");
  const more = h("button", { type: "button", on: { click: () => {
    shown += 10 * SHOWN;
    show(...last);
  } } });
  const element = h("div.stack", { hidden: true }, h("div.scroll", { tabindex: 0 }, h("table.batch-rows", {}, head, body)), more);

  function show(table, results) {
    if (last?.[0] !== table) {
      shown = SHOWN;
      fill(head, h("tr", {}, [texts.row, texts.score, texts.rank, texts.decision].map((name) => h("th", { scope: "col" }, say(name))),
        table.columns.map(({ name }) => h("th", { scope: "col" }, name))));
    }
    last = [table, results];
    element.hidden = false;
    fill(body, table.rows.slice(0, shown).map((row, index) => makeRow(table, row, index, results[index])));
    more.hidden = shown >= table.rows.length;
    fill(more, say(texts.more, { count: number(Math.min(10 * SHOWN, table.rows.length - shown)) }));
  }

  return {
    element,
    show,
    clear: () => {
      last = null;
      element.hidden = true;
    },
  };
}

function makeRow(table, row, index, result) {
  const got = result?.error !== undefined
    ? [h("td", {}, "–"), h("td", {}, "–"), h("td", {}, badge("error"), h("small", {}, result.error))]
    : [h("td", {}, result ? result.score.toFixed(3) : ""), h("td", {}, result?.rank ?? ""), h("td", {}, result ? badge(result.decision) : "")];
  return h("tr", {}, h("th", { scope: "row" }, table.numbers[index]), got,
    table.columns.map((_, column) => h("td", {}, h("span.clamped", { dir: "auto" }, String(row[column] ?? "").slice(0, MAX_CHARACTERS)))));
}
