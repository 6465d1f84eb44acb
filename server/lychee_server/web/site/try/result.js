/** The result of one pair: score, decision, why, and what the model read. */

import { h } from "../shell/dom.js";
import { factsOf } from "../shell/facts.js";
import { warningsOf } from "../shell/notices.js";
import { badge, bar, decide } from "../shell/scores.js";
import shared from "../shell/texts.js";
import { number, say } from "../shell/words.js";
import texts from "./texts.js";

const shown = (score) => say(["{value}", "{value}"], { value: number(score, 3) });

/**
 * @param {Object} scored { answer, parts }: the answer of POST /v1/score, and the scores of text and image alone where the
 *     document has both (null for one that the model cannot score).
 * @param {Object} policy { accept, review }
 */
export function showResult({ answer, parts }, policy) {
  const { relevance_score: score, timings } = answer;
  const decision = decide(score, policy);
  return [
    h("div.headline", { data: { decision } },
      h("span.sr-only", {}, say(texts.score)),
      h("output.figure.number", {}, shown(score)), badge(decision)),
    bar(score, policy),
    h("p.hint", {}, say(policy.review < policy.accept ? texts.bar_review : texts.bar, { accept: policy.accept.toFixed(2), review: policy.review.toFixed(2) })),
    warningsOf(answer.warnings),
    parts && showWhy(score, parts, policy),
    h("section", {}, h("h3", {}, say(texts.report)), factsOf(answer, answer),
      h("p.hint", {}, say(texts.timing, {
        total: number(timings.total_ms), preprocess: number(timings.preprocess_ms),
        query: number(timings.encode_query_ms), documents: number(timings.score_documents_ms),
      }))),
  ];
}

/** What a screen reader is told. */
export function announcement({ answer }, policy) {
  return say(texts.announce, {
    score: number(answer.relevance_score, 3), decision: say(shared[decide(answer.relevance_score, policy)]),
  });
}

function showWhy(both, { text, image }, policy) {
  const row = (name, score) => h("tr", {}, h("th", { scope: "row" }, say(name)), score === null
    ? h("td", { colspan: 2 }, say(texts.why_impossible))
    : [h("td", {}, bar(score, policy)), h("td.number", {}, shown(score))]);
  const isEven = text === null || image === null || Math.abs(text - image) < 0.0005;
  return h("section", {}, h("h3", {}, say(texts.why)),
    h("table.why", {}, row(texts.why_both, both), row(texts.why_text, text), row(texts.why_image, image)),
    !isEven && h("p.hint", {}, say(text > image ? texts.why_text_more : texts.why_image_more)));
}
