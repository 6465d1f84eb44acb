/** The past calls of this browser, behind a button of the header. */

import { fill, h } from "./dom.js";
import { clearHistory, deleteFromHistory, keepsHistory, readHistory, setHistory } from "./memory.js";
import texts from "./texts.js";
import { moment, say } from "./words.js";

/** Make the button; `openTab` restores what a call asked and what came of it. */
export function historyButton(openTab) {
  const list = h("ol.history");
  const none = h("p.hint", {}, say(texts.history_none));
  const clear = h("button", { type: "button", on: { click: () => clearHistory().then(update) } }, say(texts.history_clear));
  const kept = h("input#keep-history", { type: "checkbox", on: { change: () => setHistory(kept.checked) } });
  const close = h("button.primary", { type: "button", on: { click: () => dialog.close() } }, say(texts.close));
  const dialog = h("dialog#history", { aria: { labelledby: "history-title" } },
    h("h2#history-title", {}, say(texts.history)),
    h("p.hint", {}, say(texts.history_why)), none, list,
    h("label.radio", { for: "keep-history" }, kept, say(texts.history_keep)),
    h("div.actions", {}, close, clear));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

  async function update() {
    const entries = await readHistory();
    kept.checked = keepsHistory();
    none.hidden = entries.length > 0;
    clear.disabled = !entries.length;
    fill(list, entries.map((entry) => h("li", {},
      h("button.past", { type: "button", on: { click: () => restore(entry) } },
        h("span.what", { dir: "auto" }, entry.title || "…"),
        h("span.hint", {}, say(texts.history_entry, {
          tab: say(texts[`tab_${entry.tab}`]), note: entry.note,
          at: moment(entry.at, { dateStyle: "medium", timeStyle: "short" }),
        }))),
      h("button.plain", {
        type: "button", aria: { label: say(texts.history_delete, { title: entry.title }) },
        on: { click: async () => {
          await deleteFromHistory(entry.id);
          await update();
          close.focus();
        } },
      }, "✕"))));
  }

  function restore({ tab, state }) {
    dialog.close();
    openTab(tab, state);
  }

  return h("div", {}, h("button#open-history", {
    type: "button",
    on: { click: async () => {
      await update();
      dialog.showModal();
    } },
  }, say(texts.history)), dialog);
}
