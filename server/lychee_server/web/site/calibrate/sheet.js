/** Labelled pairs as they grow: kept in this browser, counted, and written as a sheet that `lychee calibrate` reads. */

import { recall, remember } from "../shell/memory.js";
import { toContent } from "../shell/ranking.js";

const KEPT = "labels";
const COLUMNS = ["query", "query_image", "text", "image", "relevant"];
// What the evidence must have, and what makes it good: lychee_evaluate/calibration/evidence.py.
export const NEEDED = { pairs: 20, queries: 5, relevant: 5, irrelevant: 5 };
export const ADVISED = { pairs: 50, queries: 20 };

export class Sheet {
  constructor() {
    this.rows = []; // { query, document: { text, image }, label: true, false or null }, those of one query together
  }

  /** Read what was kept. */
  async load() {
    this.rows = (await recall(KEPT)) ?? [];
  }

  /** Add the documents of a ranking that are not there yet, in its order; return how many are new. */
  add(query, documents) {
    const known = new Set(this.rows.map(keyOf));
    const fresh = documents.map((document) => ({ query, document, label: null })).filter((row) => !known.has(keyOf(row)));
    this.rows.unshift(...fresh);
    this.#keep();
    return fresh.length;
  }

  /** Label a row; the label that it has already is taken away. */
  label(row, relevant) {
    row.label = row.label === relevant ? null : relevant;
    this.#keep();
  }

  clear() {
    this.rows = [];
    this.#keep();
  }

  get labelled() {
    return this.rows.filter(({ label }) => label !== null);
  }

  /** Return how many pairs, queries, relevant and irrelevant pairs are labelled. */
  counts() {
    const rows = this.labelled;
    const relevant = rows.filter(({ label }) => label).length;
    return { pairs: rows.length, queries: new Set(rows.map(({ query }) => partKey(query))).size, relevant, irrelevant: rows.length - relevant };
  }

  isEnough() {
    const counts = this.counts();
    return Object.entries(NEEDED).every(([name, least]) => counts[name] >= least);
  }

  /** Return { columns, rows } of a CSV file; images are named, not written. */
  toTable() {
    const rows = this.labelled.map(({ query, document, label }) =>
      [query.text ?? "", query.image?.name ?? "", document.text ?? "", document.image?.name ?? "", label ? 1 : 0]);
    return { columns: COLUMNS, rows };
  }

  /** Return the pairs as POST /v1/calibrations takes them. */
  async toPairs() {
    return Promise.all(this.labelled.map(async ({ query, document, label }) => ({
      query: await toContent(query), document: await toContent(document), relevant: label,
    })));
  }

  #keep() {
    remember(KEPT, this.rows);
  }
}

const partKey = ({ text, image }) => [text ?? "", image?.name ?? "", image?.size ?? 0].join("\u0000");
const keyOf = ({ query, document }) => `${partKey(query)}\u0001${partKey(document)}`;
