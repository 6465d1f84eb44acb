/** Asks for an API key where the gateway wants one. */

import { onKeyWanted } from "./api.js";
import { h } from "./dom.js";
import texts from "./texts.js";
import { say } from "./words.js";

/** Have calls that need a key ask for it; several at once ask once. */
export function keyDialog() {
  let asking = null;
  onKeyWanted((wasWrong) => {
    asking ??= ask(wasWrong).finally(() => {
      asking = null;
    });
    return asking;
  });
}

function ask(wasWrong) {
  return new Promise((resolve) => {
    const field = h("input#api-key", { type: "password", autocomplete: "off", required: true });
    const dialog = h("dialog", { aria: { labelledby: "key-title" }, on: { close: () => {
      dialog.remove();
      resolve(dialog.returnValue === "use" && field.value ? field.value : null);
    } } },
    h("form", { method: "dialog" },
      h("h2#key-title", {}, say(texts.key_title)),
      h("p", {}, say(wasWrong ? texts.key_wrong : texts.key_why)),
      h("label", { for: "api-key" }, say(texts.key)), field,
      h("div.actions", {},
        h("button.primary", { value: "use" }, say(texts.key_use)),
        h("button", { value: "cancel", formnovalidate: true }, say(texts.cancel)))));
    document.body.append(dialog);
    dialog.showModal();
  });
}
