// What the page does in the browser alone: language, thresholds, downloads, keys.
window.lychee = (() => {
  "use strict";
  const DECISIONS = ["accept", "review", "reject"];
  const CSV_COLUMNS = [
    "rank", "index", "relevance_score", "logit", "decision", "modality", "tokens", "truncated", "text", "file", "error",
  ];

  // Gradio's own words, and its idea of the document's language, follow the browser: have them follow the page.
  let current = document.documentElement.lang;
  Object.defineProperty(navigator, "language", { get: () => (current === "zh" ? "zh-CN" : "en") });
  new MutationObserver(() => {
    if (document.documentElement.lang !== current) document.documentElement.lang = current;
  }).observe(document.documentElement, { attributes: true, attributeFilter: ["lang"] });

  function setLanguage(language) {
    current = language;
    document.documentElement.lang = language;
    const url = new URL(window.location.href);
    url.searchParams.set("lang", language);
    window.history.replaceState(window.history.state, "", url);
  }

  function decisionOf(score, accept, review) {
    if (score >= accept) return "accept";
    return score >= review ? "review" : "reject";
  }

  // Decide again about everything below an element of class "decided"; the review threshold is at most the other one.
  function decide(selector, accept, review) {
    const root = document.querySelector(`${selector} .decided`);
    if (!root || accept === null || review === null) return;
    const least = Math.min(accept, review);
    root.dataset.accept = accept;
    root.dataset.review = least;
    root.style.setProperty("--accept", accept);
    root.style.setProperty("--review", least);
    const counts = { accept: 0, review: 0, reject: 0 };
    for (const element of root.querySelectorAll("[data-score]")) {
      const decision = decisionOf(Number(element.dataset.score), accept, least);
      element.dataset.decision = decision;
      counts[decision] += 1;
    }
    for (const decision of DECISIONS) {
      const element = root.querySelector(`[data-count="${decision}"]`);
      if (element && element.textContent !== String(counts[decision])) element.textContent = counts[decision];
    }
  }

  function choose(selector, thresholds) {
    if (thresholds) decide(selector, thresholds[0], thresholds[1]);
  }

  function decidedResults(root) {
    const accept = Number(root.dataset.accept);
    const review = Number(root.dataset.review);
    const data = JSON.parse(root.dataset.results);
    data.thresholds = { accept, review };
    for (const result of data.results) result.decision = decisionOf(result.relevance_score, accept, review);
    return data;
  }

  // A cell that a spreadsheet would take for a formula is made a text by an apostrophe.
  function toCell(value) {
    if (value === null || value === undefined) return "";
    if (typeof value !== "string") return String(value);
    const text = /^\s*[=+\-@\t\r\n＝＋－＠]/.test(value) ? `'${value}` : value;
    return /[",\r\n;\t']/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function toCsv(data) {
    const rows = [...data.results, ...data.errors.map((entry) => ({ ...entry, error: entry.message }))];
    const lines = rows.map((row) => CSV_COLUMNS.map((name) => toCell(row[name])).join(","));
    return `\ufeff${[CSV_COLUMNS.join(","), ...lines].join("\r\n")}\r\n`;
  }

  function download(name, type, text) {
    const link = document.createElement("a");
    const url = URL.createObjectURL(new Blob([text], { type }));
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-download]");
    const root = button?.closest("[data-results]");
    if (!root) return;
    const data = decidedResults(root);
    if (button.dataset.download === "csv") download("ranking.csv", "text/csv;charset=utf-8", toCsv(data));
    else download("ranking.json", "application/json", `${JSON.stringify(data, null, 2)}\n`);
  });

  document.addEventListener("change", (event) => {
    if (event.target.matches?.(".only-kept")) {
      event.target.closest(".decided").classList.toggle("hides-rejected", event.target.checked);
    }
  });

  // Ctrl+Enter (or Cmd+Enter) anywhere in a tab presses its button.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    const tab = event.target.closest?.("[role=tabpanel]");
    const button = [...(tab?.querySelectorAll("button.submit") ?? [])].find((one) => one.offsetParent !== null);
    if (!button || button.disabled) return;
    event.preventDefault();
    event.stopPropagation();
    event.target.blur?.(); // the field hands over what was typed
    button.click();
    event.target.focus?.({ preventScroll: true });
  }, true);

  return { choose, decide, setLanguage, toCsv };
})();
