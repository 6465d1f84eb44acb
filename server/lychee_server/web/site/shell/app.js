/** The page: its header, its tabs, and which of them is open. */

import { h } from "./dom.js";
import { historyButton } from "./history.js";
import { keyDialog } from "./key_dialog.js";
import { readLink } from "./link.js";
import { keepChoice, readChoice, recall, remember } from "./memory.js";
import { modelChoice } from "./model_choice.js";
import { chooseModel, readModels } from "./models.js";
import { alertText } from "./notices.js";
import { settings } from "./settings.js";
import texts from "./texts.js";
import { LANGUAGES, LANGUAGE_NAMES, findLanguage, language, say, setLanguage } from "./words.js";

/**
 * In the order of the page. Each is a folder with a tab.js, loaded when the tab is first opened, whose default export
 * fills a panel: `(panel, { openTab, settings }) => tab`. What it returns may have
 *   read()          the tab's state, which must be possible to clone; kept at every "input" and "change" in the panel,
 *   restore(state)  to show such a state: after a reload, from a link (then without images), from another tab,
 *   show(isOpen)    to hear that a tab was opened: this one or another one.
 */
const TABS = ["try", "rank", "compare", "batch", "calibrate", "status"];
const THEMES = ["system", "light", "dark"];
const SAVE_AFTER_MS = 300;
const WAIT_FOR_MODELS_MS = 1500; // a gateway that has lost its Triton takes longer to say so

const panels = new Map(); // name -> { button, panel, tab }
let open = null;

async function start() {
  setLanguage(findLanguage());
  setTheme(readChoice("theme") ?? "system");
  keyDialog();
  const model = modelChoice();
  document.body.append(header(model.choice), h("nav#tabs", {}, tabList()), h("main", {}, model.note, TABS.map(makePanel)));
  document.addEventListener("keydown", pressSubmit, true);
  window.addEventListener("hashchange", follow);
  await Promise.race([readModels().catch(() => {}), new Promise((resolve) => setTimeout(resolve, WAIT_FOR_MODELS_MS))]);
  await follow();
}

/** Open the tab that the URL names, else the one that was open before a reload, else the first. */
async function follow() {
  const link = await readLink();
  const name = link?.tab ?? (await recall("open")) ?? TABS[0];
  const known = TABS.includes(name) ? name : TABS[0];
  // What a link brought is the tab's own from here on: a reload must not undo what was edited since.
  if (location.hash !== `#${known}`) history.replaceState(null, "", address(known));
  await openTab(known, link?.state);
}

/** Open a tab, and have it show a state: of a link, of another tab, or of before the reload. */
export async function openTab(name, state = null) {
  if (typeof state?.model === "string") chooseModel(state.model);
  open = name;
  if (location.hash !== `#${name}`) history.pushState(null, "", address(name));
  for (const [each, { button, panel }] of panels) {
    const chosen = each === name;
    button.setAttribute("aria-selected", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
    panel.hidden = !chosen;
  }
  panels.get(name).button.scrollIntoView({ block: "nearest", inline: "nearest" });
  remember("open", name);
  const entry = panels.get(name);
  entry.tab ??= load(name, entry.panel);
  const tab = await entry.tab;
  if (state) {
    await tab.restore?.(state);
    if (tab.read) remember(name, tab.read());
  }
  for (const [each, other] of panels) (await other.tab)?.show?.(each === open);
}

// The document has a base, so a lone "#rank" would be another page where the gateway lives under a prefix.
const address = (name) => `${location.pathname}${location.search}#${name}`;

async function load(name, panel) {
  panel.setAttribute("aria-busy", "true");
  panel.replaceChildren();
  try {
    const module = await import(`../${name}/tab.js`);
    const tab = module.default(panel, { openTab, settings });
    const state = await recall(name);
    if (state) await tab.restore?.(state);
    if (tab.read) keepState(name, panel, tab);
    return tab;
  } catch (error) {
    panels.get(name).tab = null; // the next click tries again
    panel.append(alertText(say(texts.problem_tab)));
    console.error(error);
    return {};
  } finally {
    panel.removeAttribute("aria-busy");
  }
}

/** Keep what a tab shows, a moment after the last change, and before the page is left. */
function keepState(name, panel, tab) {
  let timer = null;
  const keep = () => {
    timer = null;
    remember(name, tab.read());
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(keep, SAVE_AFTER_MS);
  };
  panel.addEventListener("input", soon);
  panel.addEventListener("change", soon);
  window.addEventListener("pagehide", () => timer && keep());
}

function tabList() {
  return h("div", { role: "tablist", aria: { label: say(texts.tabs) } }, TABS.map((name) => {
    const button = h("button", {
      type: "button", role: "tab", id: `choose-${name}`, aria: { controls: `tab-${name}`, selected: "false" },
      on: { click: () => openTab(name), keydown: moveInTabs },
    }, say(texts[`tab_${name}`]));
    panels.set(name, { button, panel: null, tab: null });
    return button;
  }));
}

function makePanel(name) {
  const panel = h("section.tab", {
    id: `tab-${name}`, role: "tabpanel", aria: { labelledby: `choose-${name}` }, hidden: true,
  });
  panels.get(name).panel = panel;
  return panel;
}

function moveInTabs(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const edge = { Home: 0, End: TABS.length - 1 }[event.key];
  if (step === undefined && edge === undefined) return;
  event.preventDefault();
  const next = edge ?? (TABS.indexOf(open) + step + TABS.length) % TABS.length;
  openTab(TABS[next]);
  panels.get(TABS[next]).button.focus();
}

function header(modelField) {
  const languages = h("select#language", {
    aria: { label: "Language · 语言" },
    on: {
      change: (event) => {
        setLanguage(event.target.value);
        keepChoice("language", event.target.value);
      },
    },
  }, LANGUAGES.map((name) => h("option", { value: name, selected: name === language() }, LANGUAGE_NAMES[name])));
  const themes = h("select#theme", {
    aria: { label: say(texts.theme) },
    on: { change: (event) => setTheme(event.target.value) },
  }, THEMES.map((name) => h("option", { value: name }, say(texts[`theme_${name}`]))));
  themes.value = readChoice("theme") ?? "system";
  return h("header#page-header", {},
    h("img", { src: "page/shell/lychee.svg", alt: "", width: 36, height: 36 }),
    h("div", {}, h("h1", {}, "lychee-rerank"), h("p", {}, say(texts.subtitle))),
    h("div.choices", {}, modelField, historyButton(openTab), themes, languages));
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  keepChoice("theme", name);
}

/** Ctrl+Enter (or Cmd+Enter) anywhere in a tab presses its button. */
function pressSubmit(event) {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  const button = event.target.closest?.("[role=tabpanel]")?.querySelector("button.submit:not([disabled])");
  if (!button) return;
  event.preventDefault();
  event.target.dispatchEvent(new Event("change", { bubbles: true }));
  button.click();
}

start();
