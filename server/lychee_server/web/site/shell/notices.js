/** What went wrong, what is worth knowing, and how far something is. */

import { ApiError } from "./api.js";
import { fill, h } from "./dom.js";
import texts from "./texts.js";
import { say } from "./words.js";

const PROBLEMS = {
  no_answer: texts.problem_no_answer,
  too_busy: texts.problem_too_busy,
  unavailable: texts.problem_unavailable,
  timeout: texts.problem_timeout,
  model_not_found: texts.problem_model_gone,
  invalid_input: texts.problem_input,
  invalid_request: texts.problem_input,
  model_failed: texts.problem_model,
  bad_answer: texts.problem_model,
  file_gone: texts.problem_file,
  unauthorized: texts.problem_key,
};

/** An alert for an error: what to do in the user's language, and what the gateway said about it. */
export function alertOf(error) {
  if (!(error instanceof ApiError)) throw error;
  const known = PROBLEMS[error.type] ?? texts.problem_other;
  return h("div.alert", { role: "alert" }, h("p", {}, say(known)), h("p.detail", { lang: "en" }, error.message));
}

/** An alert of the page's own: a Saying. */
export function alertText(saying) {
  return h("div.alert", { role: "alert" }, h("p", {}, saying));
}

/** The warnings of an answer; null where there are none. */
export function warningsOf(list) {
  if (!list?.length) return null;
  return h("div.warnings", { role: "status" }, h("h3", {}, say(texts.warnings)), h("ul", { lang: "en" }, list.map((each) => h("li", {}, each))));
}

/**
 * A bar of progress with counts and a button that cancels: { element, set(done, total) }. Without `onCancel` there is no
 * button, for where another one cancels.
 */
export function progress(onCancel = null) {
  const meter = h("progress", { max: 1, value: 0, aria: { label: say(texts.progress_label) } });
  const counts = h("span.counts");
  const element = h("div.progress", {}, meter, counts,
    onCancel && h("button", { type: "button", on: { click: onCancel } }, say(texts.cancel)));
  return {
    element,
    set: (done, total) => {
      meter.max = Math.max(1, total);
      meter.value = done;
      fill(counts, say(texts.progress, { done, total }));
    },
  };
}
