/** Scores rows, query by query, a few calls at a time; can be paused, and goes on where it was. */

import { call } from "../shell/api.js";

const ROWS_OF_CALL = 32;
const AT_ONCE = 3;
const ATTEMPTS = 5;
const WAIT_MS = 1000;
const TRANSIENT = new Set([0, 408, 429, 502, 503, 504]);

/**
 * Score what has no score yet.
 *
 * @param {Object} job `pairs` is a list of { query, text }, `instruction` a text or "", `model` a name or undefined; `outcomes[row]` becomes
 *     { score, logit } or { error }, where it is not set.
 * @param {{ signal: AbortSignal, onProgress: () => void }} options The signal pauses: calls in flight are given up.
 * @throws {ApiError} The gateway is lost, or takes nothing of this kind.
 */
export async function scoreRows(job, { signal, onProgress }) {
  const units = cut(job);
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  async function work() {
    for (let unit = units.shift(); unit && !either.aborted; unit = units.shift()) {
      await scoreUnit(job, unit, either);
      onProgress();
    }
  }
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  } catch (error) {
    stop.abort();
    throw error;
  }
}

async function scoreUnit({ pairs, instruction, model, outcomes }, rows, signal) {
  const json = { query: pairs[rows[0]].query, documents: rows.map((row) => pairs[row].text), priority: "bulk" };
  if (model) json.model = model;
  if (instruction) json.instruction = instruction;
  for (let attempt = 1; ; attempt += 1) {
    try {
      const answer = await call("v1/rerank", { json, signal });
      for (const each of answer.errors) outcomes[rows[each.index]] = { error: each.message };
      for (const each of answer.results) {
        if (each.decision !== "error") outcomes[rows[each.index]] = { score: each.relevance_score, logit: each.logit };
      }
      return;
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (error.status === 400 || error.status === 422) {
        for (const row of rows) outcomes[row] = { error: error.message };
        return;
      }
      if (!TRANSIENT.has(error.status) || attempt === ATTEMPTS) throw error;
      await sleep(WAIT_MS * attempt, signal);
    }
  }
}

/** Return the rows without an outcome, those of one query together, in pieces of one call. */
function cut({ pairs, outcomes }) {
  const groups = new Map();
  pairs.forEach(({ query }, row) => {
    if (outcomes[row]) return;
    if (!groups.has(query)) groups.set(query, []);
    groups.get(query).push(row);
  });
  return [...groups.values()].flatMap((rows) =>
    Array.from({ length: Math.ceil(rows.length / ROWS_OF_CALL) }, (_, piece) => rows.slice(piece * ROWS_OF_CALL, (piece + 1) * ROWS_OF_CALL)));
}

/** Return the rank of each row among those of its query, from 1; null where it has no score. */
export function rankRows({ pairs, outcomes }) {
  const groups = new Map();
  pairs.forEach(({ query }, row) => {
    if (outcomes[row]?.score === undefined) return;
    if (!groups.has(query)) groups.set(query, []);
    groups.get(query).push(row);
  });
  const ranks = pairs.map(() => null);
  for (const rows of groups.values()) {
    rows.sort((one, other) => outcomes[other].logit - outcomes[one].logit || one - other);
    rows.forEach((row, place) => { ranks[row] = place + 1; });
  }
  return ranks;
}

function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
