/** The tab Status: how the gateway and the Triton behind it are, asked for again and again while somebody looks. */

import { call } from "../shell/api.js";
import { fill, h } from "../shell/dom.js";
import { chosenModel, models, readModels, withModel } from "../shell/models.js";
import { alertOf } from "../shell/notices.js";
import { say } from "../shell/words.js";
import { bundleButton } from "./bundle.js";
import { errorsCard } from "./errors.js";
import { t, time } from "./facts.js";
import { goldenCard } from "./golden.js";
import { historyCard } from "./history.js";
import { modelsCard, replicasCard, servedCard } from "./models.js";
import { cacheCard, memoryCard, policiesCard, settingsCard, trafficCard, versionsCard } from "./operation.js";
import texts from "./texts.js";

const REFRESH_S = 5;
const SYMBOLS = { ready: "✓", starting: "…", degraded: "!", unavailable: "✕", stopping: "…" };

export default function makeTab(panel) {
  document.head.append(h("link", { rel: "stylesheet", href: "page/status/style.css" }));
  const banner = h("div.banner", { role: "status" }, say(texts.asking));
  const takenAt = h("p.hint.taken-at", {});
  const notice = h("div", {});
  const cards = {
    history: historyCard(), golden: goldenCard(refresh), errors: errorsCard(), models: modelsCard(), replicas: replicasCard(), served: servedCard(), traffic: trafficCard(),
    cache: cacheCard(), memory: memoryCard(), policies: policiesCard(), settings: settingsCard(), versions: versionsCard(),
  };
  const element = (name) => cards[name].element;
  const report = h("div.report", { hidden: true },
    element("served"),
    element("history"),
    h("div.two", {}, element("golden"), element("errors")),
    element("models"), element("replicas"),
    h("div.three", {}, element("traffic"), h("div.stack", {}, element("cache"), element("memory")),
      h("div.stack", {}, element("policies"), element("versions"))),
    element("settings"));
  panel.append(
    h("div.card.top", {}, h("div", {}, banner, takenAt), bundleButton()), notice, report);

  let isOpen = false;
  let timer = null;
  let asked = null; // the question that is on its way
  let latest = null;
  let state = null;

  const isWatched = () => isOpen && document.visibilityState === "visible";

  function refresh() {
    clearTimeout(timer);
    asked ??= ask().finally(() => {
      asked = null;
    });
    return asked;
  }

  async function ask() {
    try {
      if (chosenModel() !== null) await readModels();
      latest = await call(withModel("v1/status"));
      draw();
    } catch (error) {
      report.hidden = true; // what was true before may not be any more
      state = null;
      fill(banner);
      fill(notice, alertOf(error));
      if (error.status === 401) return; // asking again would ask the user again
    }
    if (isWatched()) timer = setTimeout(refresh, 1000 * REFRESH_S);
  }

  function draw() {
    const { traffic } = latest;
    fill(notice);
    report.hidden = false;
    drawBanner();
    takenAt.textContent = t("taken_at", { time: time(latest.taken_at), seconds: REFRESH_S });
    cards.history.update(latest);
    cards.golden.update(latest.golden);
    cards.errors.update(latest.errors);
    cards.models.update(latest.model, latest.models);
    cards.served.element.hidden = chosenModel() === null;
    cards.served.update(models().map(({ name, isReady, isDefault, version, entry }) => ({ name, isReady, isDefault, version, root: entry.root })), chosenModel());
    cards.replicas.element.hidden = !latest.replicas.length;
    cards.replicas.update(latest.replicas);
    cards.traffic.update(traffic);
    cards.cache.update(traffic.cache);
    cards.memory.update(latest.memory);
    cards.policies.update(latest.policies, latest.default_policy);
    cards.settings.update(latest.settings);
    cards.versions.update(latest.versions);
  }

  /** Draw the state only where it changed: a screen reader reads it out then. */
  function drawBanner() {
    const key = JSON.stringify([latest.state, latest.reason, latest.triton_live, document.documentElement.lang]);
    if (key === state) return;
    state = key;
    fill(banner,
      h("p.state", { data: { state: latest.state } },
        h("span", { aria: { hidden: "true" } }, SYMBOLS[latest.state]), " ", t(latest.state)),
      !latest.triton_live && h("p", {}, t("away")),
      latest.reason && h("p.reason", { lang: "en" }, latest.reason));
  }

  document.addEventListener("model", () => isWatched() && refresh());
  document.addEventListener("language", () => latest && !report.hidden && draw());
  document.addEventListener("visibilitychange", () => (isWatched() ? refresh() : clearTimeout(timer)));

  return {
    show: (isShown) => {
      isOpen = isShown;
      if (isWatched()) refresh();
      else clearTimeout(timer);
    },
  };
}
