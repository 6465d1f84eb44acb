/** Compare: two instructions, two policies, or two models, on the same query and documents. */

import { call } from "../shell/api.js";
import { callFields } from "../shell/call_fields.js";
import { fill, h, reveal } from "../shell/dom.js";
import { alertOf, alertText, progress, warningsOf } from "../shell/notices.js";
import { rank } from "../shell/ranking.js";
import { decide } from "../shell/scores.js";
import { say } from "../shell/words.js";
import { entriesOf, parseRanking } from "./ranking_file.js";
import { showComparison } from "./result.js";
import texts from "./texts.js";
import { variantField } from "./variant.js";

const EXAMPLE_DOCUMENTS = 8;
const EXAMPLE_POLICY = { name: "custom", accept: 0.85, review: 0.5 };

class Missing extends Error {
  constructor(saying) {
    super(String(saying));
    this.saying = saying;
  }
}

export default function makeTab(panel, { settings }) {
  let running = null;
  let found = null; // the last rankings, which a change of policy decides anew
  const fields = callFields("compare");
  const variants = ["A", "B"].map((name) => variantField(name, settings, () => found && show()));
  const run = h("button.primary.submit#compare-run", { type: "button", on: { click: compare } }, say(texts.compare));
  const example = h("button#compare-example", { type: "button", on: { click: fillExample } }, say(texts.example));
  const alert = h("div#compare-alert");
  const job = h("div#compare-job");
  const notes = h("div");
  const result = h("div#compare-result", {}, h("p.empty", {}, say(texts.empty)));

  const column = h("div.stack", {}, alert, job, notes, result);
  panel.append(h("div.split", {},
    h("div.stack", {},
      h("div.card", {}, h("div.actions.run-bar", {}, run, example), h("p.hint", {}, say(texts.intro)), fields.elements),
      h("div.card", {}, variants.map(({ element }) => element))),
    column),
  h("link", { rel: "stylesheet", href: "page/calibrate/style.css" }), h("link", { rel: "stylesheet", href: "page/compare/style.css" }));

  async function compare() {
    running?.abort();
    const control = new AbortController();
    running = control;
    const bar = progress(() => control.abort());
    fill(alert);
    fill(notes);
    fill(job, bar.element);
    run.disabled = example.disabled = true;
    reveal(column);
    try {
      found = await rankBoth(control.signal, bar.set);
      show();
      reveal(column);
    } catch (error) {
      if (error instanceof Missing) fill(alert, alertText(error.saying));
      else if (error.name === "AbortError") fill(alert, h("p.hint", { role: "status" }, say(texts.cancelled)));
      else fill(alert, alertOf(error));
    } finally {
      running = null;
      fill(job);
      run.disabled = example.disabled = false;
    }
  }

  /** Return both rankings: [{ model, entries, policy, failed, warnings }]; the same model with the same instruction is ranked once. */
  async function rankBoth(signal, onProgress) {
    const { query, documents } = fields.read();
    const wanted = variants.map((each) => ({ name: each.name, ...each.read() }));
    const ranking = wanted.filter(({ source }) => source === "now");
    if (ranking.length && ((!query.text && !query.image) || documents.length < 2)) throw new Missing(say(texts.problem_nothing));
    const keyOf = ({ model, instruction }) => JSON.stringify([model, instruction]);
    const calls = [...new Map(ranking.map((each) => [keyOf(each), each])).values()];
    const done = calls.map(() => 0);
    const rankings = await Promise.all(wanted.filter(({ source }) => source !== "now").map(readSaved));
    for (const [turn, each] of calls.entries()) {
      const { instruction, model } = each;
      const whole = await rank({ query, documents, instruction: instruction || undefined, model: model || undefined }, {
        signal,
        onProgress: (count) => {
          done[turn] = count;
          onProgress(done.reduce((sum, each) => sum + each, 0), calls.length * documents.length);
        },
      });
      rankings.push({
        key: keyOf(each), model: model || whole.model, entries: entriesOf(whole, documents), warnings: whole.warnings,
        failed: whole.errors.map(({ index }) => documents[index].text || documents[index].image?.name),
      });
    }
    const pair = wanted.map((variant) =>
      rankings.find((each) => (variant.source === "now" ? each.key === keyOf(variant) : each.name === variant.name)));
    const ids = new Set(pair[0].entries.map(({ id }) => id));
    if (!pair[1].entries.some(({ id }) => ids.has(id))) throw new Missing(say(texts.problem_apart));
    return { pair, same: ranking.length === 2 && calls.length === 1 };
  }

  async function readSaved({ name, source, file, past }) {
    if (source === "past") {
      if (!past) throw new Missing(say(texts.problem_no_past, { name }));
      const { whole, documents } = past;
      return { name, model: whole.model, warnings: whole.warnings, failed: [], entries: entriesOf(whole, documents) };
    }
    if (!file) throw new Missing(say(texts.problem_no_file, { name }));
    try {
      return { name, failed: [], warnings: [], ...parseRanking(await file.text()) };
    } catch {
      throw new Missing(say(texts.problem_saved, { name: file.name }));
    }
  }

  /** Show what was found under the policies that are chosen now. */
  function show() {
    const decided = found.pair.map((ranking, index) => {
      const { policy } = variants[index].read();
      return { ...ranking, entries: ranking.entries.map((entry) => ({ ...entry, decision: decide(entry.score, policy) })) };
    });
    const failed = [...new Set(found.pair.flatMap((each) => each.failed))];
    fill(notes, found.same ? h("p.hint", {}, say(texts.same_scores)) : null,
      failed.length ? alertText(say(texts.failed, { count: failed.length, names: failed.slice(0, 5).join(", ") })) : null,
      warningsOf([...new Set(found.pair.flatMap((each) => each.warnings))]));
    fill(result, showComparison(...decided));
  }

  async function fillExample() {
    try {
      const { documents, queries } = await call("page/catalogue.json");
      fields.write({ query: { text: queries[0]?.text ?? "" }, documents: documents.filter(({ text }) => text).slice(0, EXAMPLE_DOCUMENTS) });
      const policies = (await settings()).policies;
      variants[0].write({ policy: policies.find(({ name }) => name === "balanced") });
      variants[1].write({ policy: EXAMPLE_POLICY });
      panel.dispatchEvent(new Event("change"));
      await compare();
    } catch (error) {
      fill(alert, alertOf(error));
    }
  }

  return {
    read: () => ({ call: fields.read(), variants: variants.map((each) => each.read()) }),
    restore: (state) => {
      const ranking = state.ranking ?? state.call;
      if (ranking) fields.write(ranking);
      state.variants?.forEach((value, index) => variants[index].write(value));
    },
  };
}
