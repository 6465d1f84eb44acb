/** Scores and decisions, as every tab shows them: symbol, word and colour, never colour alone. */

import { h } from "./dom.js";
import texts from "./texts.js";
import { say } from "./words.js";

export const SYMBOLS = { accept: "✓", review: "?", reject: "✕", error: "!" };

/** Return what a policy makes of a score: the same rule as the gateway's, both thresholds inclusive. */
export function decide(score, { accept, review }) {
  if (score >= accept) return "accept";
  return score >= review ? "review" : "reject";
}

/** Return a policy as requests have it: by name where the API knows it, else its thresholds. */
export function policyOption({ name, accept, review }) {
  return ["strict", "balanced", "exploratory"].includes(name) ? name : { accept, review };
}

/** Return the name of a policy; a gateway's own may be unknown here. */
export const policyName = (name) => (texts[`policy_${name}`] ? say(texts[`policy_${name}`]) : name);

/** The decision as a badge. */
export function badge(decision) {
  return h(`span.badge.${decision}`, {}, h("span", { aria: { hidden: "true" } }, SYMBOLS[decision]), " ", say(texts[decision]));
}

/** A bar for a score, with the two thresholds marked. */
export function bar(score, { accept, review }) {
  return h("span.bar", { aria: { hidden: "true" }, style: { "--score": score, "--accept": accept, "--review": review } });
}
