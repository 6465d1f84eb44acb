/**
 * Figures, times and lists of facts.
 *
 * They are drawn anew every few seconds, and once more when the language changes, so they are plain strings: what
 * follows the language by itself would be remembered for as long as the page is open.
 */

import { fill, h } from "../shell/dom.js";
import { locale, moment, number, say } from "../shell/words.js";
import texts from "./texts.js";

/** Return a text in the language of now. */
export const t = (name, values = {}) => String(say(texts[name], values));

/** Return a number in the reader's language; a dash for none. */
export const figure = (value, digits = 0) => (value === null || value === undefined ? "–" : number(value, digits)());

/** Return a latency with as many digits as it deserves. */
export const milliseconds = (value) => figure(value, value && value < 10 ? 1 : 0);

/** Return a point in time (seconds since 1970) in the reader's time zone; today's without the date. */
export function time(seconds) {
  const date = new Date(1000 * seconds);
  const isToday = date.toDateString() === new Date().toDateString();
  const style = isToday ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "medium" };
  return moment(date, style)();
}

export function duration(seconds) {
  const whole = Math.floor(seconds);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return t("days_hours", { days, hours });
  if (hours) return t("hours_minutes", { hours, minutes });
  return t("minutes_seconds", { minutes, seconds: whole % 60 });
}

/** Return a list of facts: pairs of a name and a value. */
export const facts = (rows) =>
  h("dl.facts", {}, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));

/**
 * Return a table. Where it is narrow, each row becomes a block in which every cell repeats its column's name.
 *
 * @param {string} name Its class.
 * @param {string[]} columns The names of the columns; the first one holds what a row is about.
 * @param {Array<Array<*>>} rows What stands in the cells.
 */
export const table = (name, columns, rows) =>
  h(`table.figures.${name}`, {},
    h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col" }, column)))),
    h("tbody", {}, rows.map(([first, ...cells]) => h("tr", {},
      h("th", { scope: "row" }, first),
      cells.map((cell, index) => h(cell === "–" ? "td.nothing" : "td", {},
        h("span.column", { aria: { hidden: "true" } }, columns[index + 1]), h("span", {}, cell)))))));

/** Return a card with a heading, whose body is drawn anew only where what it shows has changed. */
export function card(name, heading, draw) {
  const body = h("div.body", {});
  let shown = null;
  return {
    element: h(`div.card.${name}`, {}, h("h2", {}, heading), body),
    update: (...given) => {
      const key = JSON.stringify([locale(), given]);
      if (key === shown) return;
      shown = key;
      fill(body, draw(...given));
    },
  };
}
