/** Precision, recall and F1 over all thresholds, above the scores of the labelled pairs: drawn here, in any language. */

import { fill, h, svg } from "../shell/dom.js";
import { locale, number, say } from "../shell/words.js";
import texts from "./texts.js";

const MEASURES = ["precision", "recall", "f1"];
const LEFT = 44;
const RIGHT = 12;
const TOP = 12;
const CURVES = 240; // height of the upper part
const GAP = 40;
const BARS = 90; // height of the lower part
const HEIGHT = TOP + CURVES + GAP + BARS + 40;
const STEP = 0.01;
// What a saved picture looks like; on the page style.css decides.
const SAVED = `text{font:12px sans-serif;fill:#292524}.axis,.grid{stroke:#cfc8c3}.interval{fill:#eeebe8}
path{fill:none;stroke-width:2}.precision{stroke:#0072b2}.recall{stroke:#d55e00;stroke-dasharray:6 4}
.f1{stroke:#009e73;stroke-dasharray:2 3}.chosen{stroke:#000;stroke-width:1.5}.cursor{display:none}
.relevant{fill:#0072b2}.irrelevant{fill:#d55e00;fill-opacity:.55}`;

/** Return what a threshold does to the pairs; null above the highest score, where nothing is accepted. */
export function readCurve(curve, threshold) {
  const index = curve.thresholds.findIndex((each) => each >= threshold);
  if (index < 0) return null;
  return Object.fromEntries([...MEASURES, "accepted"].map((name) => [name, curve[name][index]]));
}

/** A figure of a calibration: { element, toSvg() }. Pointer and arrow keys read values off the curves. */
export function chart(curve, calibration) {
  let at = calibration.threshold;
  let width = 0;
  let picture = null;
  const frame = h("div.chart", {
    tabindex: 0, role: "slider", aria: { label: say(texts.chart_slider), valuemin: 0, valuemax: 1 },
    on: { keydown: press, pointermove: point, pointerdown: point, pointerleave: () => move(calibration.threshold) },
  });
  const readout = h("p.readout");
  const element = h("figure.curve", {},
    h("figcaption", {}, say(texts.chart_title)), legend(), frame, readout,
    h("p.hint", {}, say(texts.chart_alternative)));
  new ResizeObserver(([{ contentRect }]) => {
    const next = Math.round(Math.min(860, contentRect.width));
    if (next && next !== width) {
      width = next;
      draw();
    }
  }).observe(frame);
  document.addEventListener("language", () => {
    if (element.isConnected) move(at);
  });

  const x = (value) => LEFT + value * (width - LEFT - RIGHT);
  const y = (value) => TOP + (1 - value) * CURVES;
  const format = (value) => new Intl.NumberFormat(locale(), { maximumFractionDigits: 2 }).format(value);

  function draw() {
    const floor = TOP + CURVES + GAP + BARS;
    const low = x(calibration.threshold_low);
    picture = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, "aria-hidden": "true" },
      svg("rect", { class: "interval", x: low, y: TOP, width: Math.max(1, x(calibration.threshold_high) - low), height: floor - TOP }),
      [0, 0.25, 0.5, 0.75, 1].map((value) => [
        svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
        svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, format(value))]),
      MEASURES.map((name) => svg("path", { class: name, d: trace(curve.thresholds, curve[name]) })),
      bars(floor),
      svg("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: floor, y2: floor }),
      [0, 0.2, 0.4, 0.6, 0.8, 1].map((value) =>
        svg("text", { x: x(value), y: floor + 16, "text-anchor": value === 1 ? "end" : "middle" }, format(value))),
      svg("text", { x: (LEFT + width - RIGHT) / 2, y: floor + 34, "text-anchor": "middle" }, say(texts.chart_x)),
      svg("text", { x: LEFT, y: TOP + CURVES + GAP - 10 }, say(texts.chart_bars)),
      svg("line", { class: "chosen", x1: x(calibration.threshold), x2: x(calibration.threshold), y1: TOP, y2: floor }),
      svg("line", { class: "cursor", y1: TOP, y2: floor }));
    fill(frame, picture);
    move(at);
  }

  function trace(thresholds, values) {
    let path = `M${x(0)} ${y(values[0])}`;
    thresholds.forEach((threshold, index) => {
      path += `V${y(values[index]).toFixed(1)}H${x(threshold).toFixed(1)}`;
    });
    return path;
  }

  function bars(floor) {
    const most = Math.max(1, ...curve.relevant, ...curve.irrelevant);
    const wide = (x(1) - x(0)) / curve.relevant.length;
    const heights = (name, shift) => curve[name].map((count, index) => svg("rect", {
      class: name, x: x(0) + index * wide + shift, width: wide * 0.44, height: (count / most) * BARS, y: floor - (count / most) * BARS,
    }));
    return [heights("relevant", 0), heights("irrelevant", wide * 0.46)];
  }

  function move(threshold) {
    at = Math.min(1, Math.max(0, threshold));
    const found = readCurve(curve, at);
    const saying = found
      ? say(texts.chart_readout, {
        threshold: number(at, 3), precision: number(found.precision, 3), recall: number(found.recall, 3),
        f1: number(found.f1, 3), accepted: number(found.accepted),
      })
      : say(texts.chart_nothing, { threshold: number(at, 3) });
    fill(readout, saying);
    frame.setAttribute("aria-valuenow", at.toFixed(3));
    frame.setAttribute("aria-valuetext", String(saying));
    const cursor = picture?.querySelector(".cursor");
    cursor?.setAttribute("x1", x(at));
    cursor?.setAttribute("x2", x(at));
  }

  function press(event) {
    const step = { ArrowRight: STEP, ArrowUp: STEP, ArrowLeft: -STEP, ArrowDown: -STEP, PageUp: 10 * STEP, PageDown: -10 * STEP }[event.key];
    const place = { Home: 0, End: 1, Escape: calibration.threshold }[event.key];
    if (step === undefined && place === undefined) return;
    event.preventDefault();
    move(place ?? at + step);
  }

  function point(event) {
    const { left } = frame.getBoundingClientRect();
    move((event.clientX - left - LEFT) / (width - LEFT - RIGHT));
  }

  return {
    element,
    toSvg: () => new XMLSerializer().serializeToString(picture).replace(">", `><style>${SAVED}</style><rect width="100%" height="100%" fill="#fff"/>`),
  };
}

function legend() {
  const entry = (name, text) => h(`li.${name}`, {}, h("span.sample", { aria: { hidden: "true" } }), say(text));
  return h("ul.legend", {}, MEASURES.map((name) => entry(name, texts[name])),
    entry("chosen", texts.threshold_short), entry("interval", texts.interval_short),
    entry("relevant", texts.relevant), entry("irrelevant", texts.irrelevant));
}
