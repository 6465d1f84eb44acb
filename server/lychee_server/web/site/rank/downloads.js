/** A ranking as a file: CSV that is safe in a spreadsheet, and JSON. */

const CSV_COLUMNS = [
  "rank", "index", "relevance_score", "logit", "decision", "modality", "tokens", "truncated", "text", "file", "error",
];

/** Return CSV with a byte order mark, as Excel wants it. Rows are objects by the names of the columns. */
export function toCsv(rows) {
  const lines = rows.map((row) => CSV_COLUMNS.map((name) => toCell(row[name])).join(","));
  return `\ufeff${[CSV_COLUMNS.join(","), ...lines].join("\r\n")}\r\n`;
}

/** A cell that a spreadsheet would take for a formula is made a text by an apostrophe. */
function toCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const text = /^\s*[=+\-@\t\r\n＝＋－＠]/.test(value) ? `'${value}` : value;
  return /[",\r\n;\t']/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Have the browser save a text as a file. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
