/** The tab that ranks many documents for a query. */

import { ApiError } from "../shell/api.js";
import { fetchPhoto, readCatalogue } from "../shell/catalogue.js";
import { shareButton } from "../shell/copying.js";
import { fill, h, reveal } from "../shell/dom.js";
import { imageField, instructionField, textField } from "../shell/fields.js";
import { addToHistory } from "../shell/memory.js";
import { modelOption } from "../shell/models.js";
import { alertOf, alertText } from "../shell/notices.js";
import { rank } from "../shell/ranking.js";
import { policyOption } from "../shell/scores.js";
import shared from "../shell/texts.js";
import { useApi } from "../shell/use_api.js";
import { say } from "../shell/words.js";
import { documentsField, makeDocuments, PAIRS, SEPARATE } from "./documents.js";
import { rankingResults } from "./results.js";
import texts from "./texts.js";

export default function makeTab(panel, { openTab, settings }) {
  const query = { text: textField("rank-query-text", say(shared.text), { rows: 2, placeholder: say(texts.query_placeholder) }), image: imageField("rank-query-image") };
  const documents = documentsField();
  const instruction = instructionField("rank-instruction");
  const options = { chunking: option("chunking"), spans: option("spans") };
  const results = rankingResults(settings, (ranking) => openTab("calibrate", { ranking }));
  const submit = h("button.primary.submit#rank-submit", { type: "button", on: { click: press } }, say(texts.submit));
  const example = h("button#rank-examples", { type: "button", on: { click: rankCatalogue } }, say(texts.example));
  const alerts = h("div#rank-alert");
  const stale = h("p.hint", { hidden: true }, say(shared.stale));
  const api = useApi(readCall);
  const moreNote = h("div.more.actions");
  let more = []; // documents with image and text beside those of the fields: those of the example catalogue
  let running = null;

  panel.append(h("link", { rel: "stylesheet", href: "page/rank/style.css" }), h("div.split", {},
    h("form.card", { on: { submit: (event) => event.preventDefault(), input: touch, change: touch } },
      h("div.actions.submit-bar", {}, submit, example),
      alerts, stale,
      h("fieldset", {}, h("legend", {}, say(texts.query)), query.text.element, query.image.element),
      documents.element, moreNote, instruction.element,
      h("details", {}, h("summary", {}, say(texts.options)), h("div.field", {}, options.chunking.element, options.spans.element)),
      h("div.actions", {}, shareButton("rank", () => toState(false))), api.element),
    results.element));
  document.addEventListener("model", touch);
  setMore([]);

  function option(name) {
    const box = h("input", { type: "checkbox", id: `rank-${name}`, aria: { describedby: `rank-${name}-why` } });
    return {
      element: h("div", {}, h("label.radio", { for: `rank-${name}` }, box, say(texts[name])),
        h("p.hint", { id: `rank-${name}-why` }, say(texts[`${name}_why`]))),
      box,
    };
  }

  function readQuery() {
    return { text: query.text.read().trim() ? query.text.read() : "", image: query.image.read() };
  }

  function readRequest() {
    const { documents: all, problem } = makeDocuments(documents.read());
    return {
      problem,
      request: {
        query: readQuery(), documents: [...(all ?? []), ...more], ...modelOption(),
        ...(instruction.read() ? { instruction: instruction.read() } : {}),
        policy: policyOption(results.policy.read()),
        ...(options.chunking.box.checked ? { chunking: true } : {}),
        ...(options.spans.box.checked ? { relevant_spans: { mode: "enabled" } } : {}),
      },
    };
  }

  function readCall() {
    const { request, problem } = readRequest();
    if (problem || isEmpty(request.query) || !request.documents.length) return null;
    return { path: "v1/rerank", request, model: results.read()?.whole?.model ?? "lychee-mini" };
  }

  function press() {
    if (running) running.abort();
    else run();
  }

  async function run() {
    const { request, problem } = readRequest();
    const wrong = isEmpty(request.query) ? say(texts.no_query) : problem ?? (request.documents.length ? null : say(texts.no_documents));
    fill(alerts, wrong && alertText(wrong));
    stale.hidden = true;
    if (wrong) return;
    const own = new AbortController();
    begin(own, request);
    let ending = "stopped";
    try {
      await rank(request, { signal: own.signal, onProgress: (...told) => running === own && results.update(...told) });
      ending = "done";
    } catch (error) {
      if (own.signal.aborted) ending = "cancelled";
      else if (running === own) fill(alerts, explain(error, request.query));
    } finally {
      if (running === own) finish(ending, request.query);
    }
  }

  function begin(own, { query: asked, documents: all }) {
    running = own;
    submit.classList.replace("primary", "cancel");
    submit.classList.remove("submit");
    fill(submit, say(shared.cancel));
    example.disabled = true;
    results.element.setAttribute("aria-busy", "true");
    results.begin(asked, all);
    reveal(results.element);
  }

  function finish(ending, asked) {
    stop();
    results.end(ending);
    reveal(results.element);
    if (document.activeElement === submit || document.activeElement === document.body) results.focus();
    api.refresh();
    panel.dispatchEvent(new Event("change")); // so that the results are kept for a reload
    const { whole, documents: all } = results.read();
    if (!whole) return;
    const { accept, review, reject } = results.counts();
    addToHistory({
      tab: "rank", title: asked.text || asked.image?.name, note: `${all.length}: ✓ ${accept} · ? ${review} · ✕ ${reject}`,
      state: { ...toState(true), ...modelOption(), results: results.read() },
    });
  }

  function stop() {
    running = null;
    submit.classList.replace("cancel", "primary");
    submit.classList.add("submit");
    fill(submit, say(texts.submit));
    example.disabled = false;
    results.element.removeAttribute("aria-busy");
  }

  function explain(error, { image }) {
    if (error instanceof ApiError && error.param === "query" && image && /image/.test(error.message)) {
      return alertText(say(texts.bad_query_image, { name: image.name }));
    }
    return alertOf(error);
  }

  async function rankCatalogue() {
    try {
      const catalogue = await readCatalogue();
      const all = await Promise.all(catalogue.documents.map(async ({ text, photo }) => ({
        text: text ?? "", image: photo && (await fetchPhoto(photo)),
      })));
      query.text.write(catalogue.queries[0].text);
      query.image.write(null);
      documents.write({
        texts: all.filter(({ image }) => !image).map(({ text }) => text).join("\n"),
        images: all.filter(({ text }) => !text).map(({ image }) => image),
        combination: SEPARATE,
      });
      setMore(all.filter(({ text, image }) => text && image));
      await run();
    } catch (error) {
      fill(alerts, alertOf(error));
    }
  }

  function setMore(given) {
    more = given;
    moreNote.hidden = !more.length;
    fill(moreNote, h("span.hint", {}, say(texts.more, { count: more.length })), h("button.plain", {
      type: "button", aria: { label: say(texts.more_remove) },
      on: { click: () => {
        setMore([]);
        panel.dispatchEvent(new Event("change"));
      } },
    }, "✕"));
  }

  function touch() {
    stale.hidden = !results.read();
    api.refresh();
  }

  function toState(withImages) {
    const { texts: written, images, combination } = documents.read();
    const asked = readQuery();
    return {
      query: withImages ? asked : { text: asked.text },
      documents: { texts: written, images: withImages ? images : [], combination: withImages || combination !== PAIRS ? combination : SEPARATE },
      ...(withImages ? { more } : {}),
      instruction: instruction.read(), policy: results.policy.read(),
      chunking: options.chunking.box.checked, spans: options.spans.box.checked,
    };
  }

  return {
    read: () => ({ ...toState(true), results: results.read() }),
    restore: (state) => {
      running?.abort();
      if (running) stop();
      query.text.write(typeof state.query?.text === "string" ? state.query.text : "");
      query.image.write(state.query?.image instanceof Blob ? state.query.image : null);
      documents.write(state.documents);
      setMore(Array.isArray(state.more) ? state.more : []);
      instruction.write(typeof state.instruction === "string" ? state.instruction : "");
      results.policy.write(state.policy);
      options.chunking.box.checked = Boolean(state.chunking);
      options.spans.box.checked = Boolean(state.spans);
      results.write(state.results);
      fill(alerts);
      stale.hidden = true;
      api.refresh();
    },
  };
}

const isEmpty = ({ text, image }) => !text && !image;
