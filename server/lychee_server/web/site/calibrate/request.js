/** POST /v1/calibrations: what is sent, and the lines that come back. */

import { send } from "../shell/api.js";
import { withModel } from "../shell/models.js";

/** The gateway says what has to be changed: a line of the event "problem". */
export class Problem extends Error {
  constructor({ kind, values = {}, message = "", wording = null, skipped = null }) {
    super(message);
    this.kind = kind;
    this.values = values;
    this.wording = wording; // the same by language, where the gateway knows
    this.skipped = skipped;
  }
}

/**
 * Find a threshold.
 *
 * @param {Object} query `target`, `instruction`, `use_scores`, `name`, `example`; what is empty is left out.
 * @param {Object} sent { body } for a file, { json } for pairs, {} for the example.
 * @param {{ signal: AbortSignal, onProgress: (done: number, total: number) => void }} options
 * @returns {Promise<Object>} The line of the event "outcome".
 * @throws {Problem} Something has to be changed.
 * @throws {ApiError} The gateway refused or failed.
 */
export async function findThreshold(query, sent, { signal, onProgress }) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== false);
  const response = await send(withModel(`v1/calibrations?${new URLSearchParams(given)}`), { method: "POST", ...sent, signal });
  for await (const line of readLines(response.body)) {
    if (line.event === "progress") onProgress(line.done, line.total);
    else if (line.event === "problem") throw new Problem(line);
    else return line;
  }
  throw new Problem({ kind: "cut_off" });
}

async function* readLines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = done ? "" : lines.pop();
    for (const line of lines) if (line.trim()) yield JSON.parse(line);
    if (done) return;
  }
}
