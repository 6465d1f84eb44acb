/** What this browser remembers, and nobody else: the tabs' states, images among them, in IndexedDB. */

const NAME = "lychee-rerank";
let database = null;

/** Keep a value under a name: anything that can be cloned, Blobs too. Where a browser forbids it, nothing is kept. */
export async function remember(name, value) {
  await transact("readwrite", (store) => store.put(value, name));
}

/** Return what was kept under a name; undefined if nothing was. */
export function recall(name) {
  return transact("readonly", (store) => store.get(name));
}

/** Forget what was kept under a name. */
export async function forget(name) {
  await transact("readwrite", (store) => store.delete(name));
}

async function transact(mode, act) {
  try {
    database ??= connect();
    const transaction = (await database).transaction("states", mode);
    return await settle(act(transaction.objectStore("states")));
  } catch {
    return undefined;
  }
}

function connect() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore("states");
  return settle(request);
}

function settle(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
