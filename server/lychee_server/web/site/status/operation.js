/** Traffic, cache, memory, policies, settings and versions. */

import { fill, h } from "../shell/dom.js";
import { policyName } from "../shell/scores.js";
import { say } from "../shell/words.js";
import { card, facts, figure, milliseconds, t } from "./facts.js";
import texts from "./texts.js";

const mib = (bytes) => t("mib", { size: figure(bytes / 2 ** 20, 1) });
const ms = (value) => (value === null ? t("no_calls") : t("ms", { value: milliseconds(value) }));
const ofLimit = (count, limit) => t("of_limit", { count, limit });

export function trafficCard() {
  return card("traffic", say(texts.traffic), ({ rates, latency_ms: latency, calls, totals, rejected }) => facts([
    [t("calls_per_s"), figure(rates.calls_per_s, 2)],
    [t("documents_per_s"), figure(rates.documents_per_s, 1)],
    [t("latency_p50"), ms(latency.p50)],
    [t("latency_p99"), ms(latency.p99)],
    [t("running"), ofLimit(figure(calls.running), figure(calls.max_running))],
    [t("waiting"), ofLimit(figure(calls.waiting), figure(calls.max_waiting))],
    [t("requests"), figure(totals.requests)],
    [t("documents"), figure(totals.documents)],
    [t("document_errors"), figure(totals.document_errors)],
    [t("rejected"), refusals(rejected)],
  ]));
}

function refusals(rejected) {
  const some = Object.entries(rejected).filter(([, count]) => count);
  if (!some.length) return t("none");
  return some.map(([reason, count]) => h("div", {}, `${texts[`rejected_${reason}`] ? t(`rejected_${reason}`) : reason} ${figure(count)}`));
}

export function cacheCard() {
  return card("cache", say(texts.cache), (cache) => {
    if (cache === null) return h("p.hint", {}, t("cache_off"));
    const lookups = cache.hits + cache.misses;
    const rate = lookups ? `${figure((100 * cache.hits) / lookups, 1)} %` : "–";
    return facts([
      [t("cache_rate"), t("cache_rate_of", { rate, hits: figure(cache.hits), lookups: figure(lookups) })],
      [t("cache_kind"), t(cache.backend === "redis" ? "cache_redis" : "cache_memory")],
      cache.entries !== null && [t("cache_entries"), figure(cache.entries)],
      cache.bytes !== null && cache.max_bytes !== null && [t("cache_size"), ofLimit(mib(cache.bytes), mib(cache.max_bytes))],
      [t("cache_evictions"), figure(cache.evictions)],
      [t("cache_failures"), figure(cache.failures)],
    ].filter(Boolean));
  });
}

export function memoryCard() {
  return card("memory", say(texts.memory), ({ gateway, triton }) => [
    facts([
      [t("memory_gateway"), mib(gateway)],
      [t("memory_triton"), triton === null ? t("memory_elsewhere") : mib(triton)],
    ]),
    triton !== null && h("p.hint", {}, t("memory_note")),
  ]);
}

export function policiesCard() {
  return card("policies", say(texts.policies), (policies, byDefault) => facts(policies.map(({ name, accept, review }) => [
    [String(policyName(name)), name === byDefault && h("small", {}, ` (${t("policy_default")})`)],
    t("policy_from", { accept, review }),
  ])));
}

export function settingsCard() {
  const list = h("div", {});
  return {
    element: h("details.card.settings", {}, h("summary", {}, say(texts.settings)), list),
    update: (settings) => fill(list, facts(settings.map(({ name, value, is_hidden: isHidden }) => [
      h("code", {}, name.replaceAll("_", "-")), settingValue(value, isHidden),
    ]))),
  };
}

function settingValue(value, isHidden) {
  if (isHidden) return t(value ? "set" : "not_set");
  if (value === true) return t("on");
  if (value === false) return t("off");
  return value === null || value === "" ? "–" : String(value);
}

export function versionsCard() {
  return card("versions", say(texts.versions), (versions) => facts(Object.entries(versions)));
}
