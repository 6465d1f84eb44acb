/** Ranking through the REST API: in pieces, so that results come early, can be counted and be given up. */

import { call } from "./api.js";

const PIECE = 24; // documents of one call
const MAX_PIECE_BYTES = 8 * 2 ** 20; // of images
const AT_ONCE = 2; // calls at the same time

/**
 * Rank documents for a query.
 *
 * The scores of a document do not depend on its neighbours, so pieces of a ranking make the whole one.
 *
 * @param {Object} request Of POST /v1/rerank: query, documents and options, with `text` and `image` as a File or Blob.
 * @param {Object} [options] `signal` gives it up; `onProgress(done, total, results)` hears of every piece.
 * @returns {Promise<Object>} { results, errors, warnings, model, query, timings: { total_ms } }: results best first.
 */
export async function rank(request, { signal, onProgress = () => {} } = {}) {
  const { query, documents, ...options } = request;
  const began = performance.now();
  const whole = { results: [], errors: [], warnings: [], model: null, query: null, embedding_cache: { hits: 0, misses: 0 } };
  const sentQuery = await toContent(query);
  const pieces = cut(documents);
  let done = 0;

  async function work() {
    for (let piece = pieces.shift(); piece !== undefined; piece = pieces.shift()) {
      const sent = await Promise.all(piece.map((index) => toContent(documents[index])));
      const answer = await call("v1/rerank", { json: { ...options, query: sentQuery, documents: sent }, signal });
      const place = (entry) => ({ ...entry, index: piece[entry.index] });
      whole.results.push(...answer.results.filter(({ decision }) => decision !== "error").map(place));
      whole.errors.push(...answer.errors.map(place));
      whole.warnings = [...new Set([...whole.warnings, ...answer.warnings])];
      whole.model = answer.model;
      whole.query = answer.query;
      for (const key of ["hits", "misses"]) whole.embedding_cache[key] += answer.embedding_cache?.[key] ?? 0;
      done += piece.length;
      sort(whole);
      onProgress(done, documents.length, whole);
    }
  }

  await Promise.all(Array.from({ length: Math.min(AT_ONCE, pieces.length) }, work));
  whole.timings = { total_ms: performance.now() - began };
  return whole;
}

/** Return a query or document as the API takes it. */
export async function toContent({ text, image }) {
  if (!image) return text;
  const url = await toDataUrl(image);
  return text ? { text, image: url } : { image: url };
}

function sort(whole) {
  whole.results.sort((one, other) => other.logit - one.logit || one.index - other.index);
  whole.errors.sort((one, other) => one.index - other.index);
}

function cut(documents) {
  const pieces = [];
  let bytes = 0;
  documents.forEach(({ image }, index) => {
    const size = image?.size ?? 0;
    const last = pieces.at(-1);
    if (!last || last.length >= PIECE || bytes + size > MAX_PIECE_BYTES) {
      pieces.push([index]);
      bytes = size;
    } else {
      last.push(index);
      bytes += size;
    }
  });
  return pieces;
}

function toDataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
