/** Ranked documents with thumbs, for hands on the keyboard: j and k move, u and d label. */

import { fill, h, svg } from "../shell/dom.js";
import { thumbnail } from "../shell/fields.js";
import { say } from "../shell/words.js";
import { ADVISED, NEEDED } from "./sheet.js";
import texts from "./texts.js";

const MOVES = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
const LABELS = { u: true, d: false };

/** A card over a Sheet: { element, show() }; `onChange` hears of every label. */
export function labelling(sheet, onChange) {
  const counts = h("ul.needed");
  const list = h("div.labels", { role: "group", aria: { label: say(texts.label_list) }, on: { keydown: press } });
  const element = h("div.card", {}, h("h2", {}, say(texts.label_title)), h("p.hint", {}, say(texts.label_hint)), counts, list);
  let items = []; // { row, element, thumbs }
  let current = 0;

  function show() {
    items = [];
    const groups = Map.groupBy ? Map.groupBy(sheet.rows, ({ query }) => query) : groupByQuery(sheet.rows);
    fill(list, sheet.rows.length ? [...groups].map(([query, rows]) => h("section", {},
      h("h3", { dir: "auto" }, part(query)), h("ul", {}, rows.map(makeRow)))) : h("p.empty", {}, say(texts.label_empty)));
    current = Math.max(0, items.findIndex(({ row }) => row.label === null));
    items.forEach(({ element: each }, index) => { each.tabIndex = index === current ? 0 : -1; });
    count();
  }

  function makeRow(row) {
    const thumbs = [true, false].map((relevant) => h(`button.thumb.${relevant ? "up" : "down"}`, {
      type: "button", tabindex: -1, aria: { label: say(relevant ? texts.thumb_up : texts.thumb_down) }, title: say(relevant ? texts.thumb_up : texts.thumb_down),
      on: { click: () => label(item, relevant) },
    }, thumb()));
    const item = { row, thumbs, element: null };
    item.element = h("li", { tabindex: -1, on: { focus: () => focus(items.indexOf(item), false) } },
      h("div.document", { dir: "auto" }, part(row.document)), h("div.thumbs", {}, thumbs));
    items.push(item);
    mark(item);
    return item.element;
  }

  function label(item, relevant) {
    sheet.label(item.row, relevant);
    mark(item);
    count();
    onChange();
  }

  function mark({ row, thumbs, element: each }) {
    each.dataset.label = row.label === null ? "" : row.label ? "relevant" : "irrelevant";
    thumbs.forEach((thumb, index) => thumb.setAttribute("aria-pressed", String(row.label === (index === 0))));
  }

  function focus(index, moves = true) {
    if (index < 0 || index >= items.length) return;
    items[current].element.tabIndex = -1;
    current = index;
    items[current].element.tabIndex = 0;
    if (moves) items[current].element.focus();
  }

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !items.length) return;
    if (event.key in MOVES) focus(current + MOVES[event.key]);
    else if (event.key in LABELS) {
      label(items[current], LABELS[event.key]);
      if (items[current].row.label !== null) focus(current + 1);
    } else return;
    event.preventDefault();
  }

  function count() {
    const counted = sheet.counts();
    fill(counts, Object.entries(NEEDED).map(([name, least]) => h(counted[name] >= least ? "li.met" : "li", {},
      h("span", { aria: { hidden: "true" } }, counted[name] >= least ? "✓ " : "○ "),
      say(texts[`needed_${name}`], { count: counted[name], least, advised: ADVISED[name] ?? "" }))));
  }

  return { element, show };
}

function groupByQuery(rows) {
  const groups = new Map();
  for (const row of rows) groups.set(row.query, [...(groups.get(row.query) ?? []), row]);
  return groups;
}

/** A thumb that is up; drawn, because not every system has a font with one. */
function thumb() {
  return svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" },
    svg("path", { d: "M2 11h4v10H2zM8 21V11l4-8c1.7 0 2.6 1.3 2.2 3l-.8 4H20c1.3 0 2.2 1.2 1.9 2.4l-1.8 7A2 2 0 0 1 18.2 21z" }));
}

function part({ text, image }) {
  return [image ? thumbnail(image) : null, h("span", {}, text || image?.name || "")];
}
