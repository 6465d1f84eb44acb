/** Rankings that were saved: by the tab Rank of any gateway, or as the answer of a call to /v1/rerank. */

/**
 * Return { model, query, entries } of a saved ranking: entries best first, as `entriesOf` makes them.
 *
 * @throws {TypeError|SyntaxError} It is no ranking.
 */
export function parseRanking(text) {
  const saved = JSON.parse(text);
  const results = (Array.isArray(saved) ? saved : saved.results).filter((each) => each.decision !== "error");
  if (!results.length || results.some(({ relevance_score: score }) => typeof score !== "number")) throw new TypeError("no ranking");
  const entries = results.map((each, place) => {
    const document = typeof each.document === "string" ? { text: each.document } : each.document ?? {};
    const name = each.text ?? document.text ?? each.file ?? each.name ?? null;
    return {
      key: name ?? `no. ${(each.index ?? place) + 1}`, image: null, index: each.index ?? place, score: each.relevance_score,
      order: each.logit ?? each.relevance_score, decision: each.decision ?? null,
    };
  });
  const policy = saved.thresholds ?? saved.policy ?? null;
  return { model: saved.model ?? null, query: saved.query?.text ?? saved.query ?? null, policy, entries: ranked(entries) };
}

/** Return the entries of a ranking made here: { key, image, index, score, order, decision, rank }. */
export function entriesOf({ results }, documents) {
  return ranked(results.map((each) => ({
    key: documents[each.index].text || documents[each.index].image?.name, image: documents[each.index].image ?? null, index: each.index,
    score: each.relevance_score, order: each.logit ?? each.relevance_score, decision: null,
  })));
}

/** Sort best first and number from 1; equal texts are told apart by their turn. */
function ranked(entries) {
  const seen = new Map();
  for (const entry of [...entries].sort((one, other) => one.index - other.index)) {
    const turn = (seen.get(entry.key) ?? 0) + 1;
    seen.set(entry.key, turn);
    entry.id = `${entry.key}\u0000${turn}`;
  }
  entries.sort((one, other) => other.order - one.order || one.index - other.index);
  entries.forEach((entry, place) => { entry.rank = place + 1; });
  return entries;
}

/** Align two rankings by document: [{ id, key, image, a, b, move, changed }]; a or b is null where it lacks one. */
export function align(a, b) {
  const rows = new Map();
  for (const [name, entries] of [["a", a], ["b", b]]) {
    for (const entry of entries) {
      const row = rows.get(entry.id) ?? { key: entry.key, image: entry.image, a: null, b: null };
      row.image ??= entry.image;
      row[name] = entry;
      rows.set(entry.id, row);
    }
  }
  return [...rows.values()].map((row) => ({
    ...row,
    move: row.a && row.b ? row.a.rank - row.b.rank : null,
    changed: Boolean(row.a?.decision && row.b?.decision && row.a.decision !== row.b.decision),
  }));
}
