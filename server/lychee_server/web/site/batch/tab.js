/** Batch: a table with queries and documents in, the same with scores, ranks and decisions out. */

import { readCatalogue } from "../shell/catalogue.js";
import { saveCsv, toCsv } from "../shell/csv.js";
import { fill, h, reveal } from "../shell/dom.js";
import { instructionField, policyField } from "../shell/fields.js";
import { fileField } from "../shell/file_field.js";
import { forget, recall, remember } from "../shell/memory.js";
import { modelOption } from "../shell/models.js";
import { alertOf, alertText } from "../shell/notices.js";
import { decide } from "../shell/scores.js";
import { number, say, sayMessage } from "../shell/words.js";
import { rowsTable } from "./rows.js";
import { rankRows, scoreRows } from "./runner.js";
import { readTable } from "./table.js";
import texts from "./texts.js";

const KEPT = "batch-job";
const KEEP_EVERY_MS = 2000;
const SHOW_EVERY_MS = 250;
const FIXED = ""; // the value of "the same query for all rows"
const ACCEPTED = ".csv,.tsv,.txt,.xlsx,.jsonl,.ndjson";

export default function makeTab(panel, { settings }) {
  let table = null; // { name, columns, rows, notes }
  let job = null; // { pairs, outcomes, instruction, model }: one model scores all rows, whatever is chosen meanwhile
  let running = null;
  let keptAt = 0;
  let shownAt = 0;

  const file = fileField("batch-file", say(texts.file), { accept: ACCEPTED, drop: say(texts.file_drop), remove: say(texts.file_remove) });
  file.element.addEventListener("change", () => takeFile(file.read()));
  const query = h("select#batch-query", { on: { change: showColumns } });
  const queryText = h("input#batch-query-text", { type: "text", dir: "auto", aria: { label: say(texts.query_text) } });
  const documentColumn = h("select#batch-document", { on: { change: showColumns } });
  const instruction = instructionField("batch-instruction");
  const policy = policyField("batch-policy", settings, () => job && show());
  const columns = h("div.stack", { hidden: true },
    h("div.field", {}, h("label", { for: "batch-query" }, say(texts.query)), query, queryText),
    h("div.field", {}, h("label", { for: "batch-document" }, say(texts.document)), documentColumn));
  const start = button("batch-start", texts.start, () => begin(true), "primary.submit");
  const example = button("batch-example", texts.example, takeExample);
  const pause = button("batch-pause", texts.pause, () => running?.abort());
  const resume = button("batch-resume", texts.resume, () => begin(false), "primary");
  const cancel = button("batch-cancel", texts.cancel, stop);
  const download = button("batch-save", texts.save, saveTable);
  const said = h("p.hint");
  const alert = h("div#batch-alert");
  const meter = h("progress", { max: 1, value: 0, hidden: true, aria: { label: say(texts.start) } });
  const state = h("p#batch-state", { role: "status" });
  const rows = rowsTable();
  const empty = h("p.empty", {}, say(texts.empty));

  panel.append(h("div.split", {},
    h("div.stack", {},
      h("div.card", {}, h("div.actions.run-bar", {}, start, example), h("p.hint", {}, say(texts.intro)), file.element, said, columns),
      h("div.card", {}, instruction.element, policy.element)),
    h("div.stack", {}, alert,
      h("div.card", {}, state, meter, h("div.actions", {}, pause, resume, cancel, download), empty, rows.element))),
  h("link", { rel: "stylesheet", href: "page/calibrate/style.css" }), h("link", { rel: "stylesheet", href: "page/batch/style.css" }));

  function button(id, text, act, classes = "") {
    return h(`button${classes && `.${classes}`}#${id}`, { type: "button", on: { click: act } }, say(text));
  }

  /** Take the example catalogue's queries with all its texts for a table. */
  async function takeExample() {
    try {
      const { queries, documents } = await readCatalogue();
      const written = documents.map(({ text }) => text).filter(Boolean);
      const pairs = queries.flatMap((each) => written.map((text) => [each.text, text]));
      file.write(new File([toCsv(["query", "text"], pairs)], "example.csv", { type: "text/csv" }));
      await takeFile(file.read());
      if (table) await begin(true);
    } catch (error) {
      fill(alert, alertOf(error));
    }
  }

  async function takeFile(given) {
    table = null;
    stop();
    fill(alert);
    columns.hidden = true;
    fill(said, given ? say(texts.reading) : null);
    if (!given) return;
    try {
      const read = await readTable(given);
      if (file.read() === given) takeTable(read);
    } catch (error) {
      fill(said);
      const told = error.status === 400 && error.errors[0]?.message;
      fill(alert, told ? alertText(sayMessage(told)) : alertOf(error));
    }
  }

  function takeTable(given, chosen = {}) {
    table = given;
    const names = table.columns.map(({ name }) => name);
    const meaning = (...wanted) => table.columns.findIndex((each) => wanted.includes(each.meaning));
    const options = () => names.map((name, index) => h("option", { value: index }, name || `${index + 1}`));
    fill(query, options(), h("option", { value: FIXED }, say(texts.query_fixed)));
    fill(documentColumn, options());
    const found = [meaning("query"), meaning("text", "document")];
    query.value = chosen.query ?? (found[0] < 0 ? FIXED : found[0]);
    documentColumn.value = chosen.document ?? (found[1] < 0 ? Math.min(names.length - 1, found[0] === 0 ? 1 : 0) : found[1]);
    fill(said, say(texts.read, { name: table.name, rows: number(table.rows.length), columns: names.length }), table.notes.map((note) => [" ", sayMessage(note)]));
    columns.hidden = false;
    showColumns();
    show();
  }

  function showColumns() {
    queryText.hidden = query.value !== FIXED;
  }

  /** Return the pairs of the rows, or null and an alert. */
  function makePairs() {
    const problem = !table ? texts.problem_no_table : !table.rows.length ? texts.problem_empty
      : query.value === documentColumn.value ? texts.problem_same
        : query.value === FIXED && !queryText.value.trim() ? texts.problem_no_query : null;
    fill(alert, problem && alertText(say(problem)));
    if (problem) return null;
    const cell = (row, column) => String(row[column] ?? "").trim();
    return table.rows.map((row) => ({ query: query.value === FIXED ? queryText.value.trim() : cell(row, query.value), text: cell(row, documentColumn.value) }));
  }

  async function begin(anew) {
    if (anew) {
      const pairs = makePairs();
      if (!pairs) return;
      const outcomes = pairs.map(({ query: asked, text }, row) =>
        (table.problems[row] ? { problem: table.problems[row] } : !asked ? { missing: "query" } : !text ? { missing: "document" } : null));
      job = { pairs, outcomes, instruction: instruction.read(), ...modelOption(), done: false };
    }
    const control = new AbortController();
    running = control;
    fill(alert);
    const began = performance.now();
    const before = count();
    show();
    reveal(state);
    try {
      await scoreRows(job, { signal: control.signal, onProgress: () => tell(began, before) });
    } catch (error) {
      if (error.name !== "AbortError" && running === control) fill(alert, error.status === 0 || error.status >= 500 ? alertText(say(texts.problem_lost)) : null, alertOf(error));
    }
    if (running !== control) return; // cancelled, or another table
    running = null;
    job.done = count() === job.pairs.length;
    await keep();
    show();
  }

  function stop() {
    running?.abort();
    running = null;
    job = null;
    forget(KEPT);
    show();
  }

  const count = () => job.outcomes.reduce((sum, each) => sum + (each !== null), 0);

  function tell(began, before) {
    const now = performance.now();
    const done = count();
    meter.value = done;
    const rate = (done - before) / (now - began);
    const seconds = Math.ceil((job.pairs.length - done) / rate / 1000);
    const eta = seconds < 90 ? say(texts.seconds, { count: seconds }) : say(texts.minutes, { count: Math.round(seconds / 60) });
    fill(state, say(texts.state_running, { done: number(done), total: number(job.pairs.length), eta }));
    if (now - shownAt > SHOW_EVERY_MS) {
      shownAt = now;
      showRows();
    }
    if (now - keptAt > KEEP_EVERY_MS) {
      keptAt = now;
      keep();
    }
  }

  function show() {
    const total = job?.pairs.length ?? 0;
    const done = job ? count() : 0;
    start.disabled = running !== null;
    fill(start, say(job?.done ? texts.again : texts.start));
    pause.hidden = running === null;
    resume.hidden = running !== null || !job || job.done;
    cancel.hidden = !job || job.done;
    download.hidden = !done;
    empty.hidden = table !== null;
    meter.hidden = !job || job.done;
    meter.max = Math.max(1, total);
    meter.value = done;
    const errors = job ? job.outcomes.filter((each) => each && each.score === undefined).length : 0;
    const text = !job ? null : running ? texts.state_starting : job.done ? texts.state_done : texts.state_paused;
    fill(state, text && say(text, { done: number(done), total: number(total), errors: number(errors) }));
    showRows();
  }

  function showRows() {
    if (!table) rows.clear();
    else rows.show(table, results());
  }

  /** Return what each row got: { score, rank, decision, error }; null where it has nothing yet. */
  function results() {
    if (!job) return [];
    const ranks = rankRows(job);
    const thresholds = policy.read();
    return job.outcomes.map((each, row) => {
      if (!each) return null;
      if (each.missing) return { error: say(texts[`error_${each.missing}`]) };
      if (each.problem) return { error: sayMessage(each.problem) };
      if (each.error) return { error: each.error };
      return { score: each.score, rank: ranks[row], decision: decide(each.score, thresholds) };
    });
  }

  function saveTable() {
    const added = results().map((each) => [each?.score ?? null, each?.rank ?? null, each?.decision ?? (each?.error ? "error" : null), each?.error ? String(each.error) : null]);
    const stem = table.name.replace(/\.\w+$/, "");
    saveCsv(`${stem}-scored.csv`,
      [...table.columns.map(({ name }) => name), "relevance_score", "rank", "decision", "error"],
      table.rows.map((row, index) => [...table.columns.map((_, column) => row[column]), ...added[index]]));
  }

  const keep = () => remember(KEPT, { table, job, query: query.value, query_text: queryText.value, document: documentColumn.value });

  const ready = recall(KEPT).then((kept) => {
    if (!kept?.table) return;
    job = kept.job;
    queryText.value = kept.query_text;
    takeTable(kept.table, kept);
  });
  show();
  return {
    read: () => ({ instruction: instruction.read(), policy: policy.read() }),
    restore: async (given) => {
      await ready;
      instruction.write(given.instruction);
      if (given.policy) policy.write(given.policy);
    },
  };
}
