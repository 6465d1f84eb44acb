/**
 * The page's texts in every language, and what changes them while the page is open.
 *
 * A tab keeps its texts in a file of its own: by name, a list with one text for each of LANGUAGES. `say` makes a Saying
 * of one; `h` (dom.js) shows it and has it follow the language. What the user typed or received is never touched.
 */

import { readChoice } from "./memory.js";

export const LANGUAGES = ["en", "zh"];
export const LANGUAGE_NAMES = { en: "English", zh: "中文" };

const TAGS = { en: "en", zh: "zh-CN" };
const bound = new Set(); // WeakRefs of nodes that show a Saying
const sayings = new WeakMap(); // node -> Map of attribute ("" for a text) -> Saying
let current = "en";

/** A text in all languages, with its values. */
export class Saying {
  constructor(entry, values) {
    this.entry = entry;
    this.values = values;
  }

  toString() {
    const text = this.entry[LANGUAGES.indexOf(current)];
    return text.replace(/\{(\w+)\}/g, (_, name) => {
      const value = this.values[name];
      return String(typeof value === "function" ? value() : value);
    });
  }
}

/**
 * Return a text that follows the language.
 *
 * @param {string[]} entry One text for each language, with {placeholders}.
 * @param {Object<string, *>} [values] What they stand for: texts, Sayings, or functions that return either.
 */
export function say(entry, values = {}) {
  if (!entry) throw new TypeError("there is no such text");
  return new Saying(entry, values);
}

/** Return what the gateway words by language, or in one text, as a Saying. */
export function sayMessage(message) {
  const text = () => (typeof message === "string" ? message : message[current] ?? Object.values(message)[0]);
  return say(["{text}", "{text}"], { text });
}

/** Return "en" or "zh". */
export const language = () => current;

/** Return the language's tag for Intl, such as "zh-CN". */
export const locale = () => TAGS[current];

/** Return a value that shows a number in the reader's language. */
export const number = (value, digits = 0) => () =>
  new Intl.NumberFormat(locale(), { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);

/** Return a value that shows a point in time, a Date or milliseconds since 1970, in the reader's language. */
export const moment = (at, style) => () => new Intl.DateTimeFormat(locale(), style).format(at);

/** Show all Sayings in a language; everything else that depends on it listens to the document's "language". */
export function setLanguage(name) {
  current = name;
  document.documentElement.lang = TAGS[name];
  for (const reference of bound) {
    const node = reference.deref();
    if (node === undefined) bound.delete(reference);
    else for (const [attribute, saying] of sayings.get(node)) write(node, attribute, saying);
  }
  document.dispatchEvent(new CustomEvent("language"));
}

/** Return the language that the URL, the last visit or the browser names. */
export function findLanguage() {
  const wanted = [new URLSearchParams(location.search).get("lang"), readChoice("language"), ...navigator.languages];
  const known = wanted.map((tag) => tag?.toLowerCase().split("-")[0]).find((name) => LANGUAGES.includes(name));
  return known ?? "en";
}

export function bindText(saying) {
  const node = document.createTextNode("");
  bind(node, "", saying);
  return node;
}

export function bindAttribute(element, name, saying) {
  bind(element, name, saying);
}

function bind(node, attribute, saying) {
  if (!sayings.has(node)) {
    sayings.set(node, new Map());
    bound.add(new WeakRef(node));
  }
  sayings.get(node).set(attribute, saying);
  write(node, attribute, saying);
}

function write(node, attribute, saying) {
  if (attribute) node.setAttribute(attribute, String(saying));
  else node.data = String(saying);
}
