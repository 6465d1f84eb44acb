/** The REST API of the gateway that serves this page, as any other client calls it. */

const KEY = "lychee-api-key"; // of this browser tab alone; gone when it is closed
let askForKey = async () => null;
let ownKey = readKey();

/** An answer that is no success, or none at all (status 0). */
export class ApiError extends Error {
  constructor(status, body, retryAfterS = null) {
    super(body.message ?? `status ${status}`);
    this.status = status;
    this.type = body.type ?? "unknown";
    this.param = body.param ?? null;
    this.errors = body.errors ?? [];
    this.requestId = body.request_id ?? null;
    this.retryAfterS = retryAfterS;
  }
}

/** Set what asks the user for an API key where the gateway wants one; it returns null where the user gives none. */
export function onKeyWanted(ask) {
  askForKey = ask;
}

/** Whether calls carry a key. */
export const hasKey = () => ownKey !== null;

/**
 * Call a route and return its JSON.
 *
 * @param {string} path Such as "v1/rerank", without a slash at the beginning: the page may live under a prefix.
 * @param {Object} [options] `json` is sent as JSON, `body` as it is; `method` is GET without either; `signal` cancels.
 * @throws {ApiError} The gateway refused or failed, or does not answer.
 */
export async function call(path, options = {}) {
  const response = await send(path, options);
  return (await response.json()) ?? {};
}

/** The same for answers that are no JSON: return the Response. */
export async function send(path, { json, body, method, signal, headers = {} } = {}) {
  for (;;) {
    const key = ownKey;
    const sent = {
      method: method ?? (json === undefined && body === undefined ? "GET" : "POST"),
      body: json === undefined ? body : JSON.stringify(json),
      headers: { ...headers, ...(json === undefined ? {} : { "content-type": "application/json" }), ...(key ? { "x-api-key": key } : {}) },
      signal,
    };
    let response;
    try {
      response = await fetch(path, sent);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, { type: "no_answer", message: String(error.message) });
    }
    if (response.ok) return response;
    const problem = (await response.json().catch(() => null)) ?? {};
    if (problem.type === "model_not_found") document.dispatchEvent(new CustomEvent("model-not-found"));
    if (response.status !== 401) {
      throw new ApiError(response.status, problem, Number.parseFloat(response.headers.get("retry-after")) || null);
    }
    if (ownKey !== key) continue; // another call was given one meanwhile
    const given = await askForKey(Boolean(key));
    if (given === null) throw new ApiError(401, problem);
    keepKey(given);
  }
}

function readKey() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null; // a browser may forbid it
  }
}

function keepKey(key) {
  ownKey = key;
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // then it holds until the page is left
  }
}
