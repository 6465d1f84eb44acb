/** A file as the gateway reads it: POST /v1/tables. */

import { call } from "../shell/api.js";

/**
 * Return { name, columns, rows, numbers, problems, notes } of a file: a row that cannot be read has no cells, and its
 * place in `problems` says why; the others have null there.
 */
export async function readTable(file) {
  const path = `v1/tables?${new URLSearchParams({ name: file.name })}`;
  const answer = await call(path, { body: file, headers: { "content-type": "application/octet-stream" } });
  const numbers = answer.row_numbers ?? answer.rows.map((_, index) => index + 2);
  const entries = answer.rows.map((cells, index) => ({ number: numbers[index], cells, problem: null }));
  const known = new Map(entries.map((entry) => [entry.number, entry]));
  for (const { row, message } of answer.problems ?? []) {
    if (known.has(row)) known.get(row).problem = message;
    else entries.push({ number: row, cells: answer.columns.map(() => ""), problem: message });
  }
  entries.sort((one, other) => one.number - other.number);
  return {
    name: file.name,
    columns: answer.columns,
    rows: entries.map(({ cells }) => cells),
    numbers: entries.map(({ number }) => number),
    problems: entries.map(({ problem }) => problem),
    notes: (answer.notes ?? []).map((note) => note.message ?? note),
  };
}
