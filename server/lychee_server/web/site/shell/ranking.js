/** Ranking through the REST API: in pieces, so that results come early, can be counted and be given up. */

import { ApiError, call } from "./api.js";

const FIRST_PIECE = 8; // documents of the first calls; later ones take about PIECE_MS
const PIECE_MS = 1000;
const MAX_PIECE = 64;
const MAX_PIECE_BYTES = 8 * 2 ** 20; // of images
const AT_ONCE = 2; // calls at the same time
const RETRIED = [429, 502, 503];
const MAX_TRIES = 4;
const MAX_WAIT_S = 10;

/**
 * Rank documents for a query.
 *
 * The scores of a document do not depend on its neighbours, so pieces of a ranking make the whole one. Options that look
 * at all documents (top_n, score_threshold, min_results) make no sense here.
 *
 * @param {Object} request Of POST /v1/rerank: query, documents and options, with `text` and `image` as a File or Blob.
 * @param {Object} [options] `signal` gives it up; `onProgress(done, total, whole)` hears of every piece.
 * @returns {Promise<Object>} { results, errors, warnings, model, query, usage, embedding_cache, timings: { total_ms } }:
 *     results best first; usage is what all calls together cost.
 * @throws {ApiError} A call failed; what was ranked before was told by onProgress.
 */
export async function rank(request, { signal, onProgress = () => {} } = {}) {
  const { query, documents, ...options } = request;
  const began = performance.now();
  const whole = {
    results: [], errors: [], warnings: [], model: null, query: null,
    usage: { total_tokens: 0, images: 0, documents: 0 }, embedding_cache: { hits: 0, misses: 0 },
  };
  const sentQuery = await toContent(query);
  const left = documents.map((_, index) => index);
  let size = FIRST_PIECE;
  let done = 0;

  async function work() {
    while (left.length) await rankPiece(cut(left, documents, size));
  }

  async function rankPiece(piece) {
    const pieceBegan = performance.now();
    try {
      const sent = await Promise.all(piece.map((index) => toContent(documents[index])));
      const answer = await callPatiently({ ...options, query: sentQuery, documents: sent }, signal);
      const tookMs = performance.now() - pieceBegan;
      size = Math.round(Math.max(1, Math.min(MAX_PIECE, 2 * piece.length, (piece.length * PIECE_MS) / tookMs)));
      add(whole, answer, piece);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if ([413, 504].includes(error.status) && piece.length > 1) {
        const middle = Math.ceil(piece.length / 2);
        size = middle;
        await rankPiece(piece.slice(0, middle));
        await rankPiece(piece.slice(middle));
        return;
      }
      const errors = error.status === 413 ? [{ index: 0, message: error.message, type: error.type }] : error.errors;
      if (!errors.length) throw error;
      add(whole, { results: [], errors, warnings: [] }, piece); // none of these can be ranked; others may be
    }
    done += piece.length;
    sort(whole);
    whole.timings = { total_ms: performance.now() - began };
    onProgress(done, documents.length, whole);
  }

  try {
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  } finally {
    left.length = 0; // the other one stops too
  }
  whole.timings = { total_ms: performance.now() - began };
  return whole;
}

/** Return a query or document as the API takes it. */
export async function toContent({ text, image }) {
  if (!image) return text;
  const url = await toDataUrl(image);
  return text ? { text, image: url } : { image: url };
}

function add(whole, answer, piece) {
  const place = (entry) => ({ ...entry, index: piece[entry.index] });
  whole.results.push(...answer.results.filter(({ decision }) => decision !== "error").map(place));
  whole.errors.push(...answer.errors.map(place));
  whole.warnings = [...new Set([...whole.warnings, ...answer.warnings])];
  whole.model = answer.model ?? whole.model;
  whole.query = answer.query ?? whole.query;
  for (const key of ["usage", "embedding_cache"]) {
    for (const name of Object.keys(whole[key])) whole[key][name] += answer[key]?.[name] ?? 0;
  }
}

function sort(whole) {
  whole.results.sort((one, other) => other.logit - one.logit || one.index - other.index);
  whole.errors.sort((one, other) => one.index - other.index);
}

/** Take the next documents away from what is left: at most `size` of them, and not too many bytes. */
function cut(left, documents, size) {
  let bytes = 0;
  let count = 0;
  while (count < Math.min(size, left.length)) {
    bytes += documents[left[count]].image?.size ?? 0;
    if (count && bytes > MAX_PIECE_BYTES) break;
    count += 1;
  }
  return left.splice(0, count);
}

/** Call again where the gateway says that it is worth it, after as long as it says. */
async function callPatiently(json, signal) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await call("v1/rerank", { json, signal });
    } catch (error) {
      if (!RETRIED.includes(error.status) || !error.retryAfterS || tries >= MAX_TRIES) throw error;
      await pause(1000 * Math.min(MAX_WAIT_S, error.retryAfterS), signal);
    }
  }
}

function pause(durationMs, signal) {
  signal?.throwIfAborted();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, durationMs);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}

function toDataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
