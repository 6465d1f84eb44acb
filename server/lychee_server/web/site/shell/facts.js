/** What the model read of a document, as a list of facts. */

import { h } from "./dom.js";
import texts from "./texts.js";
import { number, say } from "./words.js";

/**
 * Return a <dl> about a scored document; what the gateway did not tell is left out.
 *
 * @param {Object} scored One result of POST /v1/rerank, or the answer of /v1/score.
 * @param {Object} [answer] The whole answer: its model and what its cache had.
 */
export function factsOf(scored, { model = null, embedding_cache: cache = null } = {}) {
  const sizes = [scored.image_size, scored.image_resized_to].map((size) => size?.join(" × "));
  return h("dl.facts", {},
    fact(texts.fact_modality, say(texts[`modality_${scored.modality}`])),
    fact(texts.fact_tokens, scored.tokens),
    scored.tokens === undefined ? null : fact(texts.fact_truncated, say(scored.truncated ? texts.truncated : texts.not_truncated)),
    fact(texts.fact_image_size, sizes[0] && sizes[1] && sizes.join(" → ")),
    fact(texts.fact_image_tokens, scored.image_tokens),
    fact(texts.fact_logit, say(["{value}", "{value}"], { value: number(scored.logit, 4) })),
    fact(texts.fact_model, model),
    fact(texts.fact_cache, cache && say(texts.cache_use, cache)));
}

function fact(name, value) {
  if (value === undefined || value === null) return null;
  return h("div", {}, h("dt", {}, say(name)), h("dd", {}, value instanceof Object ? value : String(value)));
}
