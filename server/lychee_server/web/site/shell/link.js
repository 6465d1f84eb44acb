/**
 * Links that restore a tab with everything in it that is text. The state stands behind the #, which browsers keep to
 * themselves: no server and no log ever sees it.
 */

/** Return a link to a tab with a state, which must be JSON. */
export async function makeLink(tab, state) {
  const packed = await pump(new TextEncoder().encode(JSON.stringify(state)), new CompressionStream("deflate-raw"));
  const text = btoa(Array.from(packed, (each) => String.fromCharCode(each)).join("")).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  return `${location.origin}${location.pathname}${location.search}#${tab}/${text}`;
}

/** Return { tab, state } of the page's own URL; null where it names none, and no state where it cannot be read. */
export async function readLink() {
  const [tab, text] = location.hash.slice(1).split("/");
  if (!tab) return null;
  if (!text) return { tab, state: null };
  try {
    const packed = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (each) => each.charCodeAt(0));
    const state = JSON.parse(new TextDecoder().decode(await pump(packed, new DecompressionStream("deflate-raw"))));
    return { tab, state };
  } catch {
    return { tab, state: null };
  }
}

async function pump(bytes, stream) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}
