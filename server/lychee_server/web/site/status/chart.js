/** A chart of the last 15 minutes: lines over time, with axes, units, a legend and the same in words. */

import { h, svg } from "../shell/dom.js";
import { t } from "./facts.js";

const HEIGHT = 170;
const LEFT = 54;
const TOP = 10;
const BOTTOM = 146;
const MINUTES = [15, 10, 5, 0];

/**
 * Draw a chart.
 *
 * @param {string} title What is counted, with its unit.
 * @param {Array<{name: string, values: Array<number|null>}>} lines At most two; they differ in colour and dashes.
 * @param {(value: number) => string} show Writes a value.
 * @param {number} width Of the chart in pixels, so that its letters have the size of all others.
 */
export function chart(title, lines, show, width) {
  const right = width - 8;
  const highest = Math.max(...lines.flatMap(({ values }) => values.map((value) => value ?? 0)));
  const top = roundUp(highest);
  const y = (value) => BOTTOM - ((BOTTOM - TOP) * value) / top;
  const isEmpty = lines.every(({ values }) => values.every((value) => !value));
  return h("figure.chart", {},
    h("figcaption", {}, title),
    svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": describe(title, lines, show) },
      [0, top / 2, top].map((value) => [
        svg("line", { class: "grid", x1: LEFT, x2: right, y1: y(value), y2: y(value) }),
        svg("text", { class: "tick", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, show(value)),
      ]),
      MINUTES.map((minutes) => {
        const x = right - ((right - LEFT) * minutes) / MINUTES[0];
        const anchor = minutes === MINUTES[0] ? "start" : minutes ? "middle" : "end";
        return [
          svg("line", { class: "grid", x1: x, x2: x, y1: BOTTOM, y2: BOTTOM + 4 }),
          svg("text", { class: "tick", x: anchor === "start" ? LEFT - 6 : x, y: BOTTOM + 18, "text-anchor": anchor },
            minutes ? t("minutes_ago", { count: minutes }) : t("now")),
        ];
      }),
      lines.map(({ values }, index) => svg("path", { class: `line line-${index}`, d: path(values, right, y) })),
      isEmpty && svg("text", { class: "quiet", x: (LEFT + right) / 2, y: (TOP + BOTTOM) / 2 - 6, "text-anchor": "middle" },
        t("chart_quiet"))),
    h("ul.legend", {}, lines.map(({ name, values }, index) => h("li", {},
      svg("svg", { viewBox: "0 0 24 8", width: 24, height: 8, "aria-hidden": "true" },
        svg("path", { class: `line line-${index}`, d: "M1 4H23" })),
      name, h("span.number", {}, t("last", { value: show(last(values)) }))))));
}

/** Return the path of a line: a gap where there is no value, a dot where there is only one. */
function path(values, right, y) {
  const x = (index) => LEFT + ((right - LEFT) * (index + 1)) / values.length;
  let pen = "M";
  return values.map((value, index) => {
    if (value === null) {
      pen = "M";
      return "";
    }
    const point = `${pen}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    const step = pen === "M" ? `${point}h0.1` : point;
    pen = "L";
    return step;
  }).join("");
}

function describe(title, lines, show) {
  const told = lines.map(({ name, values }) => {
    const known = values.filter((value) => value !== null);
    if (!known.length) return t("chart_empty", { name });
    return t("chart_line", { name, last: show(last(values)), highest: show(Math.max(...known)) });
  });
  return t("chart_label", { title, lines: told.join(" ") });
}

const last = (values) => values.findLast((value) => value !== null) ?? null;

/** Return the next of 1, 2, 5, 10, 20 ... so that half of it is as easy to read. */
function roundUp(value) {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}
