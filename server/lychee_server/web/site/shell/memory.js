/** What this browser remembers, and nobody else: the tabs' states and past calls, images among them, and choices. */

const NAME = "lychee-rerank";
const VERSION = 2;
const MAX_CALLS = 50; // of the history
let database = null;

/** Keep a value under a name: anything that can be cloned, Blobs too. Where a browser forbids it, nothing is kept. */
export async function remember(name, value) {
  await transact("states", "readwrite", (store) => store.put(value, name));
}

/** Return what was kept under a name; undefined if nothing was. */
export function recall(name) {
  return transact("states", "readonly", (store) => store.get(name));
}

/** Forget what was kept under a name. */
export async function forget(name) {
  await transact("states", "readwrite", (store) => store.delete(name));
}

/**
 * Keep a call that was made, unless the user switched that off; the oldest ones go.
 *
 * @param {Object} entry { tab, title, note, state }: the tab that restores the state, what was asked, what came of it.
 */
export async function addToHistory(entry) {
  if (!keepsHistory()) return;
  await transact("history", "readwrite", (store) => store.add({ at: Date.now(), ...entry }));
  const keys = (await transact("history", "readonly", (store) => store.getAllKeys())) ?? [];
  await Promise.all(keys.slice(0, -MAX_CALLS).map(deleteFromHistory));
}

/** Return the past calls, the newest first, each with its `id`. */
export async function readHistory() {
  return ((await transact("history", "readonly", (store) => store.getAll())) ?? []).reverse();
}

export async function deleteFromHistory(id) {
  await transact("history", "readwrite", (store) => store.delete(id));
}

export async function clearHistory() {
  await transact("history", "readwrite", (store) => store.clear());
}

/** Whether calls are kept; see setHistory. */
export const keepsHistory = () => readChoice("history") !== "off";

export const setHistory = (isKept) => keepChoice("history", isKept ? "on" : "off");

/** Return a small choice of the user, such as the colours; null where there is none or the browser forbids to look. */
export function readChoice(name) {
  try {
    return localStorage.getItem(`lychee-${name}`);
  } catch {
    return null;
  }
}

/** Keep such a choice, if the browser lets us. */
export function keepChoice(name, value) {
  try {
    localStorage.setItem(`lychee-${name}`, value);
  } catch {
    // a window that keeps nothing
  }
}

async function transact(name, mode, act) {
  try {
    database ??= connect();
    const transaction = (await database).transaction(name, mode);
    return await settle(act(transaction.objectStore(name)));
  } catch {
    return undefined;
  }
}

function connect() {
  const request = indexedDB.open(NAME, VERSION);
  request.onupgradeneeded = () => {
    const stores = request.result.objectStoreNames;
    if (!stores.contains("states")) request.result.createObjectStore("states");
    if (!stores.contains("history")) request.result.createObjectStore("history", { keyPath: "id", autoIncrement: true });
  };
  return settle(request).then((opened) => {
    opened.onversionchange = () => opened.close(); // another window has a newer page
    return opened;
  });
}

function settle(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
