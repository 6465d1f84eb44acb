/** Pairs that show in one click what the model does: with photos of the example catalogue. */

import { fetchPhoto } from "../shell/catalogue.js";

export const EXAMPLES = [
  { name: "photo", query: { text: "一只猫" }, document: { photo: "cat.jpg" } },
  { name: "query_photo", query: { photo: "coffee.jpg" }, document: { text: "Espresso in a red cup, served until noon." } },
  { name: "text", query: { text: "火箭发射" }, document: { text: "The rocket lifted off from the launch pad at dawn." } },
  { name: "both", query: { text: "a yellow flower" }, document: { text: "A dahlia in full bloom, close up.", photo: "flower.jpg" } },
  { name: "bad", query: { text: "hot drink in the morning" }, document: { photo: "rocket.jpg" } },
];

/** Return an example's query and document, with its photos as Files. */
export async function fetchExample({ query, document }) {
  const [one, other] = await Promise.all([query, document].map(toContent));
  return { query: one, document: other };
}

async function toContent({ text = "", photo = null }) {
  return { text, image: photo && (await fetchPhoto(photo)) };
}
