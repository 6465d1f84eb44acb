/** One click to a support bundle. */

import { send } from "../shell/api.js";
import { save } from "../shell/csv.js";
import { fill, h } from "../shell/dom.js";
import { alertOf, alertText } from "../shell/notices.js";
import { say } from "../shell/words.js";
import texts from "./texts.js";

const NAME = "lychee-support.zip";

export function bundleButton() {
  const notice = h("div.bundle-notice", { role: "status" });
  const button = h("button#status-bundle", {
    type: "button", aria: { describedby: "status-bundle-what" }, on: { click: download },
  }, say(texts.bundle));

  async function download() {
    if (button.getAttribute("aria-disabled")) return;
    button.setAttribute("aria-disabled", "true");
    fill(notice, say(texts.bundle_making));
    try {
      const response = await send("v1/support-bundle");
      const named = /filename="?([\w.-]+)/.exec(response.headers.get("content-disposition") ?? "");
      const bundle = await response.blob();
      save(named?.[1] ?? NAME, bundle.type, bundle);
      fill(notice, say(texts.bundle_done));
    } catch (error) {
      fill(notice, error.status === 404 ? alertText(say(texts.bundle_unknown)) : alertOf(error));
    } finally {
      button.removeAttribute("aria-disabled");
    }
  }

  return h("div.bundle", {}, button, h("p.hint", { id: "status-bundle-what" }, say(texts.bundle_what)), notice);
}
