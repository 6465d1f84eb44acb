/** Calibrate: from labelled pairs, of a file or labelled right here, to a threshold, and the threshold into use. */

import { ApiError } from "../shell/api.js";
import { asContent, callFields } from "../shell/call_fields.js";
import { saveCsv } from "../shell/csv.js";
import { fill, h, reveal } from "../shell/dom.js";
import { fileField } from "../shell/file_field.js";
import { alertOf, alertText, progress } from "../shell/notices.js";
import { rank } from "../shell/ranking.js";
import { say } from "../shell/words.js";
import { labelling } from "./labelling.js";
import { showOutcome } from "./outcome.js";
import { alertOfProblem } from "./problems.js";
import { findThreshold, Problem } from "./request.js";
import { NEEDED, Sheet } from "./sheet.js";
import texts from "./texts.js";
import { useCard } from "./use.js";

const ACCEPTED = ".csv,.tsv,.txt,.jsonl,.ndjson,.xlsx,.zip";
const TARGETS = { f1: texts.target_f1, "precision>=0.9": texts.target_precision90, "precision>=0.95": texts.target_precision95, "recall>=0.9": texts.target_recall90, "": texts.target_own };

export default function makeTab(panel) {
  const sheet = new Sheet();
  let running = null;
  let outcome = null;

  const file = fileField("calibrate-file", say(texts.file), { accept: ACCEPTED, drop: say(texts.file_drop), remove: say(texts.file_remove) });
  const target = h("select#calibrate-target", { on: { change: showOwnTarget } }, Object.entries(TARGETS).map(([value, text]) => h("option", { value }, say(text))));
  const ownTarget = h("input#calibrate-own-target", { type: "text", placeholder: "precision>=0.97", aria: { label: say(texts.target_own) }, hidden: true });
  const instruction = h("textarea#calibrate-instruction", { rows: 2, dir: "auto" });
  const useScores = h("input#calibrate-use-scores", { type: "checkbox" });
  const call = callFields("calibrate");
  const modes = ["file", "label"].map((name) => h("label.radio", {},
    h("input", { type: "radio", name: "calibrate-mode", value: name, checked: name === "file", on: { change: showMode } }), say(texts[`mode_${name}`])));
  const run = h("button.primary.submit#calibrate-run", { type: "button", on: { click: () => calibrate(false) } }, say(texts.run));
  const example = h("button#calibrate-example", { type: "button", on: { click: () => calibrate(true) } }, say(texts.example));
  const rankButton = h("button#calibrate-rank", { type: "button", on: { click: rankForLabels } }, say(texts.label_rank));
  const exportButton = h("button#calibrate-export", { type: "button", on: { click: () => {
    const { columns, rows } = sheet.toTable();
    saveCsv("sheet.csv", columns, rows);
  } } }, say(texts.label_export));
  const forget = h("button#calibrate-forget", { type: "button", on: { click: forgetLabels } }, say(texts.label_forget));
  const alert = h("div#calibrate-alert");
  const job = h("div#calibrate-job");
  const result = h("div#calibrate-result");
  const curves = h("div#calibrate-curves");
  const list = labelling(sheet, showCounts);
  const use = useCard();
  const filePart = h("div.stack", {}, file.element, h("p.hint", {}, say(texts.format)));
  const labelPart = h("div.stack", {}, call.elements, h("div.actions", {}, rankButton, exportButton, forget));

  panel.append(h("div.split.calibrate", {},
    h("div.stack", {},
      h("div.card", {}, h("div.actions.run-bar", {}, run, example), h("p.hint", {}, say(texts.intro)), h("div.radios", { role: "radiogroup", aria: { label: say(texts.mode) } }, modes), filePart, labelPart),
      h("div.card", {},
        h("div.field", {}, h("label", { for: "calibrate-target" }, say(texts.target)), target, ownTarget),
        h("details", {}, h("summary", {}, say(texts.options)),
          h("div.field", {}, h("label", { for: "calibrate-instruction" }, say(texts.instruction)), instruction, h("p.hint", {}, say(texts.instruction_info))),
          h("label.radio", {}, useScores, say(texts.use_scores)), h("p.hint", {}, say(texts.use_scores_info))))),
    h("div.stack", {}, alert, job, list.element, result, use.element, curves)),
  h("link", { rel: "stylesheet", href: "page/calibrate/style.css" }));

  function mode() {
    return panel.querySelector("input[name=calibrate-mode]:checked").value;
  }

  function showMode() {
    const labels = mode() === "label";
    filePart.hidden = example.hidden = labels;
    labelPart.hidden = list.element.hidden = !labels;
    showCounts();
  }

  function showCounts() {
    exportButton.disabled = !sheet.labelled.length;
    forget.disabled = !sheet.rows.length;
  }

  function showOwnTarget() {
    ownTarget.hidden = target.value !== "";
    if (!ownTarget.hidden) ownTarget.focus();
  }

  function showResult() {
    use.offer(outcome?.calibration ?? null);
    const [verdict, curve] = outcome ? showOutcome(outcome) : [h("p.empty", {}, say(texts.empty)), null];
    fill(result, verdict);
    fill(curves, curve);
  }

  async function perform(work) {
    running?.abort();
    const control = new AbortController();
    running = control;
    fill(alert);
    const bar = progress(() => control.abort());
    fill(job, h("p", { role: "status" }, say(texts.reading)), bar.element);
    for (const button of [run, example, rankButton]) button.disabled = true;
    reveal(job);
    try {
      await work(control.signal, (done, total) => {
        bar.set(done, total);
        fill(job.firstChild, say(done === total ? texts.computing : texts.scoring));
      });
    } catch (error) {
      if (error.name === "AbortError") fill(alert, h("p.hint", { role: "status" }, say(texts.cancelled)));
      else if (error instanceof Problem) fill(alert, alertOfProblem(error));
      else fill(alert, error instanceof ApiError && texts[`problem_${error.type}`] ? alertText(say(texts[`problem_${error.type}`])) : alertOf(error));
      reveal(alert);
    } finally {
      running = null;
      fill(job);
      for (const button of [run, example, rankButton]) button.disabled = false;
    }
  }

  function calibrate(isExample) {
    return perform(async (signal, onProgress) => {
      let sent = {};
      let name = null;
      if (!isExample && mode() === "label") {
        if (!sheet.isEnough()) throw new Problem({ kind: "label_more", values: NEEDED });
        sent = { json: { pairs: await sheet.toPairs() } };
      } else if (!isExample) {
        if (!file.read()) throw new Problem({ kind: "no_file" });
        name = file.read().name;
        sent = { body: file.read(), headers: { "content-type": "application/octet-stream" } };
      }
      const query = {
        target: target.value || ownTarget.value.trim() || "?", instruction: instruction.value.trim(),
        use_scores: !isExample && mode() === "file" && useScores.checked, name, example: isExample,
      };
      outcome = await findThreshold(query, sent, { signal, onProgress });
      showResult();
      reveal(result);
      panel.dispatchEvent(new Event("change"));
    });
  }

  function rankForLabels() {
    const { query, documents } = call.read();
    if ((!query.text && !query.image) || !documents.length) {
      fill(alert, alertText(say(texts.problem_label_nothing)));
      return Promise.resolve();
    }
    return perform(async (signal, onProgress) => {
      const whole = await rank({ query, documents, instruction: instruction.value.trim() || undefined }, { signal, onProgress });
      takeRanking({ query, documents: whole.results.map(({ index }) => documents[index]) });
      if (whole.errors.length) fill(alert, alertText(say(texts.label_errors, { count: whole.errors.length })));
    });
  }

  function takeRanking({ query, documents }) {
    const added = sheet.add(asContent(query), documents.map(asContent));
    list.show();
    showCounts();
    if (!added) fill(alert, h("p.hint", { role: "status" }, say(texts.label_known)));
    list.element.querySelector("li[tabindex='0']")?.focus();
  }

  function forgetLabels() {
    if (!window.confirm(String(say(texts.label_forget_sure, { count: sheet.labelled.length })))) return;
    sheet.clear();
    list.show();
    showCounts();
  }

  const ready = sheet.load().then(() => {
    list.show();
    showCounts();
  });
  showMode();
  showResult();
  return {
    read: () => ({
      mode: mode(), file: file.read(), target: target.value, own_target: ownTarget.value, instruction: instruction.value,
      use_scores: useScores.checked, call: call.read(), outcome,
    }),
    restore: async (state) => {
      await ready;
      if (state.ranking) {
        choose("label");
        const { query, documents, results } = state.ranking;
        takeRanking({ query, documents: results?.map(({ index }) => documents[index]) ?? documents });
        return;
      }
      file.write(state.file);
      target.value = state.target ?? "f1";
      ownTarget.value = state.own_target ?? "";
      ownTarget.hidden = target.value !== "";
      instruction.value = state.instruction ?? "";
      useScores.checked = Boolean(state.use_scores);
      if (state.call) call.write(state.call);
      outcome = state.outcome ?? null;
      choose(state.mode ?? "file");
      showResult();
    },
    show: (isOpen) => {
      if (isOpen) use.refresh();
    },
  };

  function choose(name) {
    for (const radio of panel.querySelectorAll("input[name=calibrate-mode]")) radio.checked = radio.value === name;
    showMode();
  }
}
