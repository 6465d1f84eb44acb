/** Two rankings side by side: what moved, whose decision changed, and how alike the two orders are. */

import { saveCsv } from "../shell/csv.js";
import { fill, h } from "../shell/dom.js";
import { thumbnail } from "../shell/fields.js";
import { badge } from "../shell/scores.js";
import shellTexts from "../shell/texts.js";
import { number, say } from "../shell/words.js";
import { kendallTau } from "./kendall.js";
import { align } from "./ranking_file.js";
import texts from "./texts.js";

const SHOWN = 50;
const ORDERS = {
  a: (one, other) => (one.a?.rank ?? Infinity) - (other.a?.rank ?? Infinity),
  b: (one, other) => (one.b?.rank ?? Infinity) - (other.b?.rank ?? Infinity),
  move: (one, other) => Math.abs(other.move ?? 0) - Math.abs(one.move ?? 0),
};

/** Return the card of two rankings: { model, entries } each, whose entries have their decisions. */
export function showComparison(a, b) {
  const rows = align(a.entries, b.entries);
  const body = h("tbody");
  const more = h("button", { type: "button", on: { click: () => show(shown + 10 * SHOWN) } });
  const order = h("select#compare-order", { on: { change: () => show(SHOWN) } },
    [["a", "A"], ["b", "B"], ["move", say(texts.order_move)]].map(([value, name]) => h("option", { value }, name)));
  let shown = 0;

  function show(count) {
    shown = count;
    const sorted = [...rows].sort(ORDERS[order.value]);
    fill(body, sorted.slice(0, count).map(makeRow));
    more.hidden = count >= rows.length;
    fill(more, say(texts.more, { count: number(Math.min(10 * SHOWN, rows.length - count)) }));
  }

  const card = h("div.card", {}, summary(rows), models(a, b),
    h("div.actions", {}, h("label", { for: "compare-order" }, say(texts.order)), order,
      h("button#compare-save", { type: "button", on: { click: () => saveTable(rows) } }, say(texts.save_csv))),
    h("div.scroll.compare-table", { tabindex: 0 }, h("table.compared", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, say(texts.document)),
        ["A", "B"].flatMap((name) => ["rank", "score", "decision"].map((each) => h("th", { scope: "col" }, say(texts[each], { name })))),
        h("th", { scope: "col" }, say(texts.move)))),
      body)),
    more);
  show(SHOWN);
  return card;
}

/** Return { tau, both, moved, total, changes } of aligned rows. */
export function measure(rows) {
  const both = rows.filter(({ a, b }) => a && b);
  const changes = new Map();
  for (const { a, b } of both.filter(({ changed }) => changed)) {
    const name = `${a.decision} ${b.decision}`;
    changes.set(name, (changes.get(name) ?? 0) + 1);
  }
  return {
    tau: kendallTau(both.map(({ a }) => a.order), both.map(({ b }) => b.order)),
    both: both.length, moved: both.filter(({ move }) => move !== 0).length, total: rows.length, changes,
  };
}

function summary(rows) {
  const { tau, both, moved, changes } = measure(rows);
  const changed = [...changes.values()].reduce((sum, count) => sum + count, 0);
  return h("div", { role: "status" },
    h("p.compare-summary", {},
      h("strong#compare-tau", {}, tau === null ? say(texts.tau_none) : say(texts.tau, { tau: number(tau, 3) })),
      h("span", {}, say(texts.moved, { count: number(moved), total: number(both) })),
      h("span", {}, changed ? say(texts.changed, { count: number(changed) }) : say(texts.unchanged))),
    changed ? h("ul.changes", {}, [...changes].map(([name, count]) => {
      const [from, to] = name.split(" ");
      return h("li", {}, say(texts.change, { from: say(shellTexts[from]), to: say(shellTexts[to]), count: number(count) }));
    })) : null,
    h("p.hint", {}, say(texts.tau_means, { both: number(both) })));
}

function models(a, b) {
  return h("p.hint", {}, [["A", a], ["B", b]].filter(([, { model }]) => model).map(([name, { model }]) =>
    h("span", {}, say(texts.by, { name, model: typeof model === "string" ? model : model.id ?? model.model_id ?? "" }), " ")));
}

function makeRow({ key, image, a, b, move, changed }) {
  const cells = (entry) => entry
    ? [h("td", {}, entry.rank), h("td", {}, entry.score.toFixed(3)), h("td.decision", {}, entry.decision ? badge(entry.decision) : "–")]
    : [h("td", {}, "–"), h("td", {}, "–"), h("td.decision", {}, "–")];
  return h(changed ? "tr.changed" : "tr", {},
    h("th", { scope: "row" }, h("span", {}, image ? thumbnail(image) : null, h("span.clamped", { dir: "auto", title: key }, key))),
    cells(a), cells(b),
    h("td", {}, sayMove(move), changed ? h("span.sr-only", {}, " ", say(texts.changed_here)) : null));
}

function sayMove(move) {
  if (move === null) return h("span.hint", {}, say(texts.only_one));
  if (move === 0) return h("span", {}, h("span", { aria: { hidden: "true" } }, "="), h("span.sr-only", {}, say(texts.not_moved)));
  const count = Math.abs(move);
  return h(move > 0 ? "span.up" : "span.down", {},
    h("span", { aria: { hidden: "true" } }, `${move > 0 ? "▲" : "▼"}${count}`),
    h("span.sr-only", {}, say(move > 0 ? texts.moved_up : texts.moved_down, { count })));
}

function saveTable(rows) {
  const part = (entry) => (entry ? [entry.rank, entry.score, entry.decision ?? ""] : ["", "", ""]);
  saveCsv("comparison.csv",
    ["document", "rank_a", "score_a", "decision_a", "rank_b", "score_b", "decision_b", "move"],
    rows.map(({ key, a, b, move }) => [key, ...part(a), ...part(b), move]));
}
