import { h } from "../shell/dom.js";

export default function makeTab(panel) {
  panel.append(h("div.card", {}, "…"));
  return {};
}
