/** The example catalogue: documents, queries and photos that come with the page. */

import { call, send } from "./api.js";

/** Return { documents: [{ text, photo }], queries: [{ text, photo }] }; both are empty where it is not installed. */
export const readCatalogue = () => call("page/catalogue.json");

/** Return a photo of the example catalogue as a File. */
export async function fetchPhoto(name) {
  const blob = await (await send(`page/photos/${name}`)).blob();
  return new File([blob], name, { type: blob.type });
}
