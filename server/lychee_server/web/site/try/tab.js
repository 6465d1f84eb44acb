/** The tab that scores one pair and says why. */

import { ApiError, call } from "../shell/api.js";
import { shareButton } from "../shell/copying.js";
import { fill, h, reveal } from "../shell/dom.js";
import { imageField, instructionField, textField } from "../shell/fields.js";
import { addToHistory } from "../shell/memory.js";
import { modelOption } from "../shell/models.js";
import { alertOf, alertText } from "../shell/notices.js";
import { policyBar } from "../shell/policy_bar.js";
import { toContent } from "../shell/ranking.js";
import { policyOption } from "../shell/scores.js";
import shared from "../shell/texts.js";
import { useApi } from "../shell/use_api.js";
import { say } from "../shell/words.js";
import { EXAMPLES, fetchExample } from "./examples.js";
import { announcement, showResult } from "./result.js";
import texts from "./texts.js";

export default function makeTab(panel, { settings }) {
  const fields = { query: contentFields("query"), document: contentFields("document") };
  const instruction = instructionField("try-instruction");
  const policy = policyBar("try-policy", settings, decide);
  const submit = h("button.primary.submit#try-submit", { type: "button", on: { click: () => score() } }, say(texts.submit));
  const alerts = h("div#try-alert");
  const status = h("p.sr-only", { role: "status" });
  const stale = h("p.hint", { hidden: true }, say(shared.stale));
  const shown = h("div.shown");
  const api = useApi(() => ({ path: "v1/score", request: toRequest(), model: scored?.answer.model ?? "lychee-mini" }));
  const share = shareButton("try", () => toState(({ text }) => ({ text })));
  let scored = null; // { answer, parts }
  let running = null;
  let result = null;

  panel.append(
    h("link", { rel: "stylesheet", href: "page/try/style.css" }),
    h("div.examples", { role: "group", aria: { labelledby: "try-examples" } },
      h("h2#try-examples", {}, say(texts.examples)), EXAMPLES.map(exampleButton)),
    h("div.split", {},
      h("form.card", { on: { submit: (event) => event.preventDefault(), input: touch, change: touch } },
        fields.query.element, fields.document.element, instruction.element,
        h("div.actions", {}, submit, share), alerts),
      result = h("div.card#try-result", { aria: { labelledby: "try-result-title" }, role: "region" },
        h("h2#try-result-title", {}, say(texts.result)), status, stale, shown, policy.element, api.element)));
  document.addEventListener("model", touch);
  show();

  function contentFields(name) {
    const text = textField(`try-${name}-text`, say(shared.text), { rows: 3, placeholder: say(texts[`${name}_placeholder`]) });
    const image = imageField(`try-${name}-image`);
    return {
      element: h("fieldset", {}, h("legend", {}, say(texts[name])), text.element, image.element),
      read: () => ({ text: text.read().trim() ? text.read() : "", image: image.read() }),
      write: (content) => {
        text.write(textOf(content));
        image.write(content?.image instanceof Blob ? content.image : null);
      },
    };
  }

  function exampleButton(example) {
    const { query, document } = example;
    const photo = query.photo ?? document.photo;
    return h("button.example", { type: "button", data: { example: example.name }, on: { click: () => tryExample(example) } },
      photo ? h("img", { src: `page/photos/${photo}`, alt: "", loading: "lazy" }) : h("span.no-picture", { aria: { hidden: "true" } }, "文A"),
      h("span", {}, say(texts[`example_${example.name}`])));
  }

  async function tryExample(example) {
    try {
      const { query, document } = await fetchExample(example);
      fields.query.write(query);
      fields.document.write(document);
      instruction.write("");
      panel.dispatchEvent(new Event("change"));
      await score();
    } catch (error) {
      fill(alerts, alertOf(error));
    }
  }

  async function score() {
    const [query, document] = [fields.query.read(), fields.document.read()];
    const empty = isEmpty(query) ? texts.no_query : isEmpty(document) ? texts.no_document : null;
    fill(alerts, empty && alertText(say(empty)));
    if (empty) return;
    running?.abort();
    const own = new AbortController();
    running = own;
    scored = null;
    show(h("p.hint", { role: "status" }, say(texts.scoring)));
    panel.setAttribute("aria-busy", "true");
    try {
      const found = await ask(own.signal);
      if (running !== own) return;
      scored = found;
      show();
      fill(status, announcement(scored, policy.read()));
      reveal(result);
      keepCall();
    } catch (error) {
      if (running !== own) return;
      show();
      fill(alerts, explain(error, query, document));
    } finally {
      if (running === own) {
        panel.removeAttribute("aria-busy");
        panel.dispatchEvent(new Event("change")); // so that the result is kept for a reload
      }
    }
  }

  async function ask(signal) {
    const { query, document, ...options } = toRequest();
    const sent = { ...options, query: await toContent(query) };
    const one = async (content) => call("v1/score", { json: { ...sent, document: await toContent(content) }, signal });
    const answer = await one(document);
    if (!document.text || !document.image) return { answer, parts: null };
    const alone = (content) => one(content).then((part) => part.relevance_score, (error) => {
      if (error instanceof ApiError && error.status === 400) return null; // a model that cannot score one of them alone
      throw error;
    });
    const [text, image] = await Promise.all([alone({ text: document.text }), alone({ image: document.image })]);
    return { answer, parts: { text, image } };
  }

  function explain(error, query, document) {
    const name = { query, document }[error.param]?.image?.name;
    if (error.type !== "invalid_input" || !name || !/image/.test(error.message)) return alertOf(error);
    return alertText(say(texts[`bad_${error.param}_image`], { name }));
  }

  function toRequest() {
    const [query, document] = [fields.query.read(), fields.document.read()];
    return {
      query, document, ...modelOption(),
      ...(instruction.read() ? { instruction: instruction.read() } : {}),
      policy: policyOption(policy.read()),
    };
  }

  function show(instead = null) {
    stale.hidden = true;
    policy.element.hidden = api.element.hidden = !scored;
    fill(shown, instead ?? (scored ? showResult(scored, policy.read()) : h("p.hint", {}, say(texts.empty))));
    api.refresh();
  }

  function decide() {
    if (!scored) return;
    const isStale = !stale.hidden;
    show();
    stale.hidden = !isStale;
    fill(status, announcement(scored, policy.read()));
  }

  function touch() {
    stale.hidden = !scored;
    api.refresh();
  }

  function toState(change = (content) => content) {
    return {
      query: change(fields.query.read()), document: change(fields.document.read()),
      instruction: instruction.read(), policy: policy.read(),
    };
  }

  function keepCall() {
    const [query, document] = [fields.query.read(), fields.document.read()];
    const name = ({ text, image }) => text || image?.name;
    addToHistory({
      tab: "try", title: `${name(query)} · ${name(document)}`, note: scored.answer.relevance_score.toFixed(3),
      state: { ...toState(), ...modelOption(), scored },
    });
  }

  return {
    read: () => ({ ...toState(), scored }),
    restore: (state) => {
      running?.abort();
      running = null;
      panel.removeAttribute("aria-busy");
      fields.query.write(state.query);
      fields.document.write(state.document);
      instruction.write(textOf({ text: state.instruction }));
      policy.write(state.policy);
      scored = state.scored ?? null;
      fill(alerts);
      show();
    },
  };
}

const isEmpty = ({ text, image }) => !text && !image;

/** The text of what a link brought, whatever that is. */
const textOf = (content) => (typeof content?.text === "string" ? content.text : "");
