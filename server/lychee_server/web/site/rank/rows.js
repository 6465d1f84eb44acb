/** The rows of a ranking: one line for each document, its details behind it. */

import { fill, h } from "../shell/dom.js";
import { factsOf } from "../shell/facts.js";
import { thumbnail } from "../shell/fields.js";
import { badge, bar, decide } from "../shell/scores.js";
import shared from "../shell/texts.js";
import { number, say } from "../shell/words.js";
import { showPassages } from "./passages.js";
import texts from "./texts.js";

const MAX_LINE = 300; // characters of a text in its row
const MAX_ERRORS = 20;

/** Makes rows and keeps them, so that pictures are decoded once and what was opened stays open while others arrive. */
export class Rows {
  /** @param {Object[]} documents { text, image } in the order of the call. */
  constructor(documents) {
    this.documents = documents;
    this.rows = new Map(); // index -> { element, update }
  }

  /** Return the row of a result at a rank, decided by a policy. */
  of(result, rank, policy) {
    if (!this.rows.has(result.index)) this.rows.set(result.index, makeRow(result, this.documents[result.index]));
    const row = this.rows.get(result.index);
    row.update(rank, policy);
    return row.element;
  }
}

function makeRow(result, { text, image }) {
  const score = result.relevance_score;
  const rankNumber = h("span.rank.number");
  const verdict = h("span.verdict");
  const detail = h("div.detail");
  let policy = null;
  const element = h("li", { data: { index: result.index, score } }, h("details.row", { on: { toggle: (event) => {
    if (event.target.open) fill(detail, showDetail(result, { text, image }));
  } } }, h("summary", {},
    rankNumber,
    image ? thumbnail(image) : h("span.no-picture", { aria: { hidden: "true" } }, "¶"),
    h("span.what", {},
      h("span.line", { dir: "auto" }, text ? shorten(text) : image.name),
      h("span.hint", {}, say(shared[`modality_${result.modality}`]), " · ", say(texts.number, { number: result.index + 1 }),
        text && image ? ` · ${image.name}` : null,
        result.truncated ? [" · ", say(shared.fact_truncated)] : null,
        result.relevant_spans?.length ? [" · ", say(texts.spans_found, { count: result.relevant_spans.length })] : null)),
    verdict), detail));
  return {
    element,
    update: (rank, { accept, review }) => {
      rankNumber.textContent = rank;
      if (policy?.accept === accept && policy?.review === review) return;
      policy = { accept, review };
      const decision = decide(score, policy);
      element.dataset.decision = decision;
      fill(verdict, bar(score, policy), h("span.number.score", {}, say(["{score}", "{score}"], { score: number(score, 3) })), badge(decision));
    },
  };
}

function showDetail(result, { text, image }) {
  return [
    text && h("div.text", { dir: "auto" }, showPassages(text, result.chunk ?? null, result.relevant_spans ?? [])),
    image && h("p.hint", {}, image.name),
    factsOf(result),
  ];
}

/** What could not be ranked: number, name and reason, each in its place. */
export function showErrors(errors, documents) {
  if (!errors.length) return null;
  return h("section.failed", {}, h("h3", {}, say(texts.errors, { count: errors.length })),
    h("ul", {}, errors.slice(0, MAX_ERRORS).map(({ index, message }) => {
      const { text, image } = documents[index];
      const isImage = image && /image/.test(message);
      return h("li", {},
        h("span.rank.number", {}, say(texts.number, { number: index + 1 })),
        image ? thumbnail(image) : h("span.no-picture", { aria: { hidden: "true" } }, "¶"),
        h("span.what", {},
          h("span.line.name", { dir: "auto" }, image?.name ?? shorten(text)),
          h("span.reason", {}, say(isImage ? texts.error_image : texts.error_document)),
          !isImage && h("span.hint.detail", { lang: "en" }, message)));
    })),
    errors.length > MAX_ERRORS && h("p.hint", {}, say(texts.errors_shown, { count: MAX_ERRORS })));
}

function shorten(text) {
  const line = text.slice(0, MAX_LINE).replace(/\s+/g, " ");
  return text.length > MAX_LINE ? `${line} …` : line;
}
