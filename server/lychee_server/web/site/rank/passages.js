/** A document's text with its best chunk and the sentences that match. */

import { h } from "../shell/dom.js";
import { number, say } from "../shell/words.js";
import texts from "./texts.js";

/**
 * Return a text as elements, in which the chunk is framed and the spans are marked.
 *
 * @param {string} text
 * @param {Object|null} chunk { start, end } in code points, as the API counts; null: the whole text was read.
 * @param {Object[]} spans { start, end, score } likewise.
 */
export function showPassages(text, chunk, spans) {
  if (!chunk && !spans.length) return [text];
  const points = Array.from(text); // by code points: a string of JavaScript counts astral characters twice
  const inside = chunk ?? { start: 0, end: points.length };
  const edges = [0, points.length, inside.start, inside.end, ...spans.flatMap(({ start, end }) => [start, end])];
  const borders = [...new Set(edges)].filter((each) => each >= 0 && each <= points.length).sort((one, other) => one - other);
  const pieces = borders.slice(0, -1).map((start, at) => {
    const end = borders[at + 1];
    const span = spans.find((each) => each.start <= start && end <= each.end);
    const words = points.slice(start, end).join("");
    const isRead = inside.start <= start && end <= inside.end;
    return { isRead, shown: span ? mark(words, span) : words };
  });
  const group = (isIn) => pieces.filter(isIn).map(({ shown }) => shown);
  if (!chunk) return group(() => true);
  const first = pieces.findIndex(({ isRead }) => isRead);
  return [
    h("span.outside", {}, group((piece) => pieces.indexOf(piece) < first)),
    h("span.chunk", { title: say(texts.best_chunk) }, group(({ isRead }) => isRead)),
    h("span.outside", {}, group((piece) => !piece.isRead && pieces.indexOf(piece) > first)),
  ];
}

function mark(words, { score }) {
  return h("mark", { title: say(texts.matching, { score: number(score, 3) }) }, words);
}
