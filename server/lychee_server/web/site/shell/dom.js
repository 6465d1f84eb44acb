/**
 * Elements, made without a template language: whatever is no element becomes text, so nothing that a user entered is
 * ever read as HTML.
 */

import { Saying, bindAttribute, bindText } from "./words.js";

/**
 * Make an element.
 *
 * @param {string} tag A tag, with classes and an id as a selector has them: "button.primary#rank-submit".
 * @param {Object<string, *>} [properties] `on` holds listeners by event, `data` and `aria` what stands behind the dash,
 *     `style` custom properties; true writes an empty attribute, and null, undefined and false write none.
 * @param {...*} children Elements, texts, Sayings, lists of them; null, undefined and false leave nothing.
 * @returns {HTMLElement}
 */
export function h(tag, properties = {}, ...children) {
  const [name, ...marks] = tag.split(/(?=[.#])/);
  const element = document.createElement(name);
  for (const mark of marks) {
    if (mark.startsWith("#")) element.id = mark.slice(1);
    else element.classList.add(mark.slice(1));
  }
  setProperties(element, properties);
  append(element, children);
  return element;
}

/** Make an SVG element, likewise. */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) setAttribute(element, key, value);
  append(element, children);
  return element;
}

/** Put other children in the place of an element's own. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** Scroll until an element begins in the upper half of the window, if it does not yet. */
export function reveal(element) {
  const { top } = element.getBoundingClientRect();
  if (top < 0 || top > window.innerHeight / 2) element.scrollIntoView({ block: "start" });
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Saying ? bindText(child) : child);
  }
}

function setProperties(element, properties) {
  for (const [key, value] of Object.entries(properties)) {
    if (key === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (key === "data" || key === "aria") {
      for (const [name, each] of Object.entries(value)) setAttribute(element, `${key}-${name}`, each);
    } else if (key === "style") {
      for (const [name, each] of Object.entries(value)) element.style.setProperty(name, each);
    } else if (["value", "checked", "selected", "files"].includes(key)) {
      element[key] = value;
    } else {
      setAttribute(element, key, value);
    }
  }
}

function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (value instanceof Saying) bindAttribute(element, name, value);
  else element.setAttribute(name, value === true ? "" : String(value));
}
