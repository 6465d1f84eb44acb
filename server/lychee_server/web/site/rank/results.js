/** The results of a ranking: counts and policy that stay in sight, a page of rows, what failed, downloads. */

import { save, saveCsv } from "../shell/csv.js";
import { fill, h } from "../shell/dom.js";
import { progress, warningsOf } from "../shell/notices.js";
import { policyBar } from "../shell/policy_bar.js";
import { SYMBOLS, decide } from "../shell/scores.js";
import shared from "../shell/texts.js";
import { number, say } from "../shell/words.js";
import { Rows, showErrors } from "./rows.js";
import texts from "./texts.js";

const PAGE = 20; // rows at a time
const DECISIONS = ["accept", "review", "reject"];
const COLUMNS = [
  "rank", "index", "relevance_score", "logit", "decision", "modality", "tokens", "truncated", "text", "file", "error",
]; // of the CSV file

/**
 * @param {() => Promise<Object>} settings Returns GET /v1/settings.
 * @param {(ranking: Object) => void} onLabel Is given { query, documents, results } that the user wants to label.
 * @returns {Object} { element, policy, begin, update, end, read, write }
 */
export function rankingResults(settings, onLabel) {
  const title = h("h2#rank-result-title", { tabindex: "-1" }, say(texts.results));
  const counts = Object.fromEntries(DECISIONS.map((each) => [each, h("b", { data: { count: each } }, "0")]));
  const status = h("p.hint.rank-status");
  const announced = h("p.sr-only", { role: "status", aria: { live: "polite" } });
  const running = progress();
  const policy = policyBar("rank-policy", settings, redraw);
  const kept = h("input#rank-kept", { type: "checkbox", on: { change: toFirst } });
  const topN = h("input#rank-top-n", { type: "number", min: 1, placeholder: say(texts.top_n_all), on: { input: toFirst } });
  const tools = h("div.actions.tools", {},
    h("label.radio", { for: "rank-kept" }, kept, say(texts.hide_rejected)),
    h("label.radio", { for: "rank-top-n" }, say(texts.top_n), topN),
    ["csv", "json"].map((kind) => h("button", {
      type: "button", data: { download: kind }, aria: { label: say(texts.download, { kind: kind.toUpperCase() }) },
      on: { click: () => keep(kind) },
    }, "↓ ", say(texts[kind]))),
    h("button#rank-label", { type: "button", on: { click: () => onLabel({ query: data.query, documents: data.documents, results: data.whole.results }) } },
      say(texts.label)));
  const summary = h("p.counts#rank-counts", {}, DECISIONS.map((each) => h(`span.badge.${each}`, {},
    h("span", { aria: { hidden: "true" } }, SYMBOLS[each]), " ", counts[each], " ", say(shared[each]))));
  const warnings = h("div");
  const list = h("ol.ranking");
  const nothing = h("p.hint", {}, say(texts.empty));
  const failed = h("div");
  const span = h("span.hint.number");
  const [previous, next] = [["previous", -1], ["next", 1]].map(([name, step]) =>
    h("button", { type: "button", data: { page: name }, on: { click: () => turn(step) } }, say(texts[name])));
  const pager = h("nav.pager", { aria: { label: say(texts.pages) } }, previous, span, next);
  const head = h("div.results-head", {}, h("div.title", {}, title, summary), running.element, policy.element);
  const element = h("div.card#rank-result", { role: "region", aria: { labelledby: "rank-result-title" } },
    head, announced, status, tools, warnings, nothing, list, pager, failed);
  let data = null; // { query, documents, whole, ending }
  let rows = null;
  let first = 0;

  function begin(query, documents) {
    rows = new Rows(documents);
    data = { query, documents, whole: null, ending: "running" };
    first = 0;
    fill(announced, say(texts.running, { total: documents.length }));
    running.set(0, documents.length);
    redrawAll();
  }

  function update(done, total, whole) {
    data.whole = whole;
    running.set(done, total);
    redraw();
  }

  /** Say how it ended: "done", "cancelled" or "stopped". What was ranked so far stays. */
  function end(ending) {
    data.ending = ending;
    redrawAll();
    const all = count(data.whole?.results ?? []);
    fill(announced, say(texts.announce, { status: sayStatus(), ...all }));
  }

  function sayStatus() {
    const { whole, documents, ending } = data;
    return say(texts[ending], {
      done: whole?.results.length ?? 0, total: documents.length, time: number((whole?.timings.total_ms ?? 0) / 1e3, 1),
    });
  }

  function count(results) {
    const all = { accept: 0, review: 0, reject: 0 };
    for (const { relevance_score: score } of results) all[decide(score, policy.read())] += 1;
    return all;
  }

  /** Return the results that the filters leave. */
  function chosen() {
    const results = data?.whole?.results ?? [];
    const { review } = policy.read();
    const best = Number(topN.value) >= 1 ? results.slice(0, Number(topN.value)) : results;
    return kept.checked ? best.filter(({ relevance_score: score }) => score >= review) : best;
  }

  function redraw() {
    const isRunning = data?.ending === "running";
    const results = data?.whole?.results ?? [];
    running.element.hidden = !isRunning;
    for (const each of [summary, policy.element, tools]) each.hidden = !results.length;
    status.hidden = !data || isRunning;
    if (data) fill(status, sayStatus());
    for (const [decision, value] of Object.entries(count(results))) counts[decision].textContent = value;
    const left = chosen();
    first = Math.max(0, Math.min(first, Math.floor((left.length - 1) / PAGE) * PAGE));
    const page = left.slice(first, first + PAGE);
    const shown = page.map((result, at) => rows.of(result, first + at + 1, policy.read()));
    if (shown.length !== list.children.length || shown.some((row, at) => row !== list.children[at])) list.replaceChildren(...shown);
    nothing.hidden = isRunning || page.length > 0 || Boolean(data?.whole?.errors.length && !results.length);
    fill(nothing, say(results.length ? texts.nothing_shown : texts.empty));
    pager.hidden = left.length <= PAGE;
    previous.disabled = first === 0;
    next.disabled = first + PAGE >= left.length;
    fill(span, say(texts.shown, { first: first + 1, last: first + page.length, count: left.length }));
  }

  function redrawAll() {
    redraw();
    fill(warnings, warningsOf(data?.whole?.warnings));
    fill(failed, data?.whole && showErrors(data.whole.errors, data.documents));
  }

  function toFirst() {
    first = 0;
    redraw();
  }

  function turn(step) {
    first += step * PAGE;
    redraw();
    element.scrollIntoView({ block: "start" });
    if (document.activeElement === document.body) title.focus({ preventScroll: true });
  }

  function keep(kind) {
    const { documents, whole } = data;
    const { accept, review } = policy.read();
    const about = ({ index }) => ({
      ...(documents[index].text ? { text: documents[index].text } : {}),
      ...(documents[index].image ? { file: documents[index].image.name } : {}),
    });
    const results = chosen().map((result, at) => ({
      rank: at + 1, ...result, decision: decide(result.relevance_score, policy.read()), ...about(result),
    }));
    const errors = whole.errors.map((each) => ({ ...each, ...about(each) }));
    if (kind === "csv") {
      const failedRows = errors.map(({ message, ...each }) => ({ ...each, decision: "error", error: message }));
      saveCsv("ranking.csv", COLUMNS, [...results, ...failedRows].map((row) => COLUMNS.map((name) => row[name])));
    } else {
      const { results: _, errors: __, ...rest } = whole;
      const all = { thresholds: { accept, review }, ...rest, results, errors };
      save("ranking.json", "application/json", `${JSON.stringify(all, null, 2)}\n`);
    }
  }

  redraw();
  return {
    element, policy, begin, update, end,
    focus: () => title.focus({ preventScroll: true }),
    /** What is shown, to be kept; null before the first ranking. */
    read: () => data && { ...data, ending: data.ending === "running" ? "cancelled" : data.ending },
    write: (value) => {
      data = value ?? null;
      rows = data && new Rows(data.documents);
      first = 0;
      fill(announced);
      redrawAll();
    },
    counts: () => count(data?.whole?.results ?? []),
  };
}
