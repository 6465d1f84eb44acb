/** Rate, latency and queue of the last 15 minutes, as charts and as a table. */

import { fill, h } from "../shell/dom.js";
import { say } from "../shell/words.js";
import { chart } from "./chart.js";
import { duration, figure, milliseconds, t, table, time } from "./facts.js";
import texts from "./texts.js";

const LEAST_WIDTH = 280;
const GAP = 16;

const rate = (value) => figure(value, value === null || Number.isInteger(value) ? 0 : 1);

export function historyCard() {
  const charts = h("div.charts", {});
  const rows = h("div", {});
  const note = h("p.hint", {});
  const details = h("details", { on: { toggle: () => drawTable() } }, h("summary", {}, say(texts.as_table)), rows);
  let report = null;

  function drawTable() {
    if (details.open && report) fill(rows, minutes(report));
  }

  const element = h("div.card.minutes-card", {}, h("h2", {}, say(texts.history)), charts, details, note);
  return {
    element,
    update: (given) => {
      report = given;
      const { series } = report;
      const width = chartWidth(element.clientWidth - 2 * GAP);
      fill(charts,
        chart(t("rate"), [{ name: t("rate_line"), values: series.calls_per_s }], rate, width),
        chart(t("latency"), [{ name: t("p50"), values: series.p50_ms }, { name: t("p99"), values: series.p99_ms }], milliseconds, width),
        chart(t("queue"), [{ name: t("waiting_line"), values: series.waiting }, { name: t("running_line"), values: series.running }], rate, width));
      note.textContent = t("history_note", { pid: report.pid, uptime: duration(report.uptime_s) });
      drawTable();
    },
  };
}

/** Return how wide each chart will be: as many as fit stand side by side, as the style sheet says. */
function chartWidth(room) {
  const columns = Math.max(1, Math.min(3, Math.floor((room + GAP) / (LEAST_WIDTH + GAP))));
  return Math.max(200, Math.floor((room - GAP * (columns - 1)) / columns));
}

function minutes({ series, taken_at: takenAt }) {
  const columns = ["col_minute", "col_rate", "col_p50", "col_p99", "col_waiting", "col_running"].map((name) => t(name));
  const perRow = Math.round(60 / series.step_s);
  const rows = [];
  for (let end = series.calls_per_s.length; end > 0; end -= perRow) {
    const of = (name) => series[name].slice(Math.max(0, end - perRow), end).filter((value) => value !== null);
    const most = (name) => (of(name).length ? Math.max(...of(name)) : null);
    const calls = of("calls_per_s");
    if (!calls.length) break;
    const from = takenAt - (series.calls_per_s.length - end + perRow) * series.step_s;
    rows.push([
      time(from), figure(calls.reduce((sum, value) => sum + value, 0) / calls.length, 2),
      milliseconds(most("p50_ms")), milliseconds(most("p99_ms")), figure(most("waiting")), figure(most("running")),
    ]);
  }
  return table("minutes", columns, rows);
}
