/** "Use this threshold": in this browser's page, and in the gateway for everyone who names no policy. */

import { call, hasKey } from "../shell/api.js";
import { fill, h } from "../shell/dom.js";
import { chosenModel, withModel } from "../shell/models.js";
import { alertOf } from "../shell/notices.js";
import { policyName } from "../shell/scores.js";
import { keepOwnPolicy, settingsChanged } from "../shell/settings.js";
import { makeCalibratedClient } from "../shell/snippets.js";
import shellTexts from "../shell/texts.js";
import { moment, number, say } from "../shell/words.js";
import texts from "./texts.js";

const PATH = "v1/calibration";

/** A card: { element, offer(calibration), refresh() }. */
export function useCard() {
  let calibration = null;
  const said = h("div", { role: "status" });
  const now = h("p.hint", {});
  const code = h("pre", { tabindex: 0 });
  const start = h("p.hint", {});
  const here = h("button#use-page", { type: "button", disabled: true, on: { click: useHere } }, say(texts.use_page));
  const everywhere = h("button#use-gateway", { type: "button", disabled: true, on: { click: () => change("PUT") } }, say(texts.use_gateway));
  const back = h("button#use-gateway-undo", { type: "button", hidden: true, on: { click: () => change("DELETE") } }, say(texts.use_undo));
  const element = h("div.card.use", {}, h("h2", {}, say(texts.use)), now,
    h("div.actions", {}, here, everywhere, back), said,
    h("details", {}, h("summary", {}, say(texts.use_code)),
      code,
      start));

  function showCode() {
    const model = chosenModel();
    const url = new URL(document.baseURI).href.replace(/\/$/, "");
    fill(code, makeCalibratedClient(model === null ? { url: "localhost:8001" } : { url, model, hasKey: hasKey() }));
    fill(start, model === null ? say(texts.use_start) : say(texts.use_start_several, { name: model }));
  }

  async function useHere() {
    await keepOwnPolicy({ accept: calibration.threshold, review: calibration.review_threshold });
    fill(said, h("p.done", {}, say(texts.used_page, { name: say(shellTexts.policy_calibrated_here) })));
  }

  async function change(method) {
    for (const button of [everywhere, back]) button.disabled = true;
    try {
      const answer = await call(withModel(PATH), { method, json: method === "PUT" ? calibration : undefined });
      show(answer);
      fill(said, h("p.done", {}, say(method === "PUT" ? texts.used_gateway : texts.used_undo)));
      settingsChanged();
    } catch (error) {
      fill(said, alertOf(error));
    } finally {
      back.disabled = false;
      everywhere.disabled = calibration === null;
    }
  }

  function show(answer) {
    const { default_policy: name, accept, review, since, source, warnings } = answer;
    const at = moment(new Date(since), { dateStyle: "medium", timeStyle: "short" });
    fill(now, say(source === "put" ? texts.decides_put : texts.decides, {
      name: policyName(name), accept: number(accept, 3), review: number(review, 3), since: at,
    }), answer.changeable ? null : [" ", say(texts.use_refused)], warnings.map((each) => h("span.warning", { lang: "en" }, ` ${each}`)));
    back.hidden = source !== "put";
    everywhere.hidden = !answer.changeable;
  }

  document.addEventListener("model", () => {
    fill(said);
    showCode();
    refresh();
  });

  async function refresh() {
    try {
      show(await call(withModel(PATH)));
    } catch {
      fill(now); // the Status tab says what is wrong
    }
  }

  return {
    element,
    refresh: () => {
      showCode();
      return refresh();
    },
    offer: (given) => {
      calibration = given;
      fill(said);
      here.disabled = everywhere.disabled = given === null;
    },
  };
}
