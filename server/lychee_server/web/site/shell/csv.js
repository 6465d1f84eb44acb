/** Tables as spreadsheets read them, and files for the user to keep. */

/** Return a table as CSV: with the mark that makes Excel read UTF-8, and no cell that it would run as a formula. */
export function toCsv(columns, rows) {
  const lines = [columns, ...rows].map((cells) => cells.map(toCell).join(","));
  return `\ufeff${lines.join("\r\n")}\r\n`;
}

/** A text that a spreadsheet would take for a formula gets an apostrophe, which `lychee calibrate` takes away again. */
function toCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const text = /^\s*'*[=+\-@\t\r\n＝＋－＠]/.test(value) ? `'${value}` : value;
  return /[",\r\n;\t']/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Have the browser save a text or a Blob under a name. */
export function save(name, type, content) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

export const saveCsv = (name, columns, rows) => save(name, "text/csv;charset=utf-8", toCsv(columns, rows));
