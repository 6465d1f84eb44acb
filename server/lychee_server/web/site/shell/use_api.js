/** "Use via API": the call on the screen, as code to copy. */

import { hasKey } from "./api.js";
import { copyButton } from "./copying.js";
import { fill, h } from "./dom.js";
import { KINDS, makeSnippets } from "./snippets.js";
import texts from "./texts.js";
import { say } from "./words.js";

/**
 * @param {() => Object|null} read Returns { path, request, model } (see makeSnippets), or null where nothing was filled in.
 * @returns {Object} { element, refresh() }: refresh shows what `read` returns now.
 */
export function useApi(read) {
  let kind = KINDS[0];
  const code = h("pre.code", { tabindex: "0", role: "region", aria: { label: say(texts.api) } });
  const buttons = KINDS.map((name) => h("button", {
    type: "button", data: { kind: name }, aria: { pressed: String(name === kind) },
    on: { click: () => choose(name) },
  }, say(texts[`api_${name}`])));
  const note = h("p.hint", {}, say(texts.api_why));
  const element = h("details.use-api", { on: { toggle: refresh } }, h("summary", {}, say(texts.api)),
    h("div.actions", {}, h("div.segments", { role: "group", aria: { label: say(texts.api) } }, buttons),
      copyButton(say(texts.copy), () => code.textContent)),
    code, note);

  function choose(name) {
    kind = name;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.kind === name));
    refresh();
  }

  function refresh() {
    if (!element.open) return;
    const call = read();
    const url = new URL(document.baseURI).href.replace(/\/$/, "");
    const text = call && makeSnippets({ url, hasKey: hasKey(), ...call })[kind];
    fill(code, text ?? say(call ? texts.api_cannot : texts.api_nothing));
  }

  return { element, refresh };
}
