/**
 * A call as code that makes it: curl, Python, Cohere's client, LangChain. Images stand there by the names of their files;
 * a key stands nowhere, only the environment variable that holds it.
 */

export const KINDS = ["curl", "python", "cohere", "langchain"];
const KEY = "LYCHEE_API_KEY";

/**
 * Return the code of a call by KINDS; null where a client cannot make it (LangChain asks with texts alone).
 *
 * @param {Object} call { url, path, request, model, hasKey }: `request` is that of POST /v1/rerank or /v1/score, with
 *     `text` and `image` as a File in its query and documents (or `document`).
 */
export function makeSnippets(call) {
  return { curl: curl(call), python: python(call), cohere: cohere(call), langchain: langchain(call) };
}

function curl({ url, path, request, hasKey }) {
  const lines = layOut(request, (content) => contentJson(content, shellImage), json);
  const isPlain = !documentsOf(request).some(({ image }) => image) && !request.query.image;
  return [
    `curl -sS ${quoteShell(`${url}/${path}`)} \\`,
    ...(hasKey ? [`  -H "x-api-key: $${KEY}" \\`] : []),
    `  -H 'content-type: application/json' --data-binary @- <<${isPlain ? "'JSON'" : "JSON"}`,
    isPlain ? lines : escapeHere(lines),
    "JSON",
  ].join("\n").replaceAll(MARK, "");
}

// What the shell fills in is marked, so that the same characters in the user's own texts stay what they are.
const MARK = "\ue000";
const shellImage = (file) => `"${MARK}$(base64 < ${quoteShell(file.name)} | tr -d '\\n')${MARK}"`;

/** Escape what a shell would read in a here-document, except between marks. */
function escapeHere(text) {
  return text.split(MARK).map((part, at) => (at % 2 ? part : part.replace(/[\\$`]/g, "\\$&"))).join("");
}

function python({ url, request, hasKey }) {
  const all = [request.query, ...documentsOf(request)];
  const policy = typeof request.policy === "object" ? ["Policy"] : [];
  const names = [
    ...(request.chunking ? ["Chunking"] : []),
    ...(all.some(({ image }) => image) ? ["Image"] : []),
    ...(all.some(({ image, text }) => image && text) ? ["ImageText"] : []),
    "LycheeClient", ...policy, ...(request.relevant_spans ? ["RelevantSpans"] : []),
  ];
  return `${hasKey ? "import os\n\n" : ""}from lychee_client import ${names.join(", ")}

documents = [
${documentsOf(request).map((each) => `    ${pythonInput(each)},\n`).join("")}]
with ${pythonClient({ url, model: request.model, hasKey })} as client:
    response = client.rerank(
        ${[pythonInput(request.query), "documents", ...pythonOptions(request)].join(",\n        ")},
    )
for result in response.results:
    print(result.index, f"{result.relevance_score:.4f}", result.decision)
`;
}

/** Return the Python of a client that decides by the file of a calibration. */
export function makeCalibratedClient(client) {
  return `${client.hasKey ? "import os\n\n" : ""}from lychee_client import Calibration, LycheeClient

client = ${pythonClient(client, 'policy=Calibration.load("calibration.json")')}`;
}

function pythonClient({ url, model, hasKey }, ...more) {
  const key = hasKey ? [`headers={"x-api-key": os.environ["${KEY}"]}`] : [];
  return `LycheeClient(${[quote(url), ...named({ model }), ...key, ...more].join(", ")})`;
}

function pythonInput({ text, image }) {
  if (!image) return quote(text);
  const file = `Image.from_path(${quote(image.name)})`;
  return text ? `ImageText(${file}, ${quote(text)})` : file;
}

function pythonOptions({ instruction, policy, chunking, relevant_spans: spans }) {
  return [
    ...(instruction ? [`instruction=${quote(instruction)}`] : []),
    ...pythonPolicy(policy),
    ...(chunking ? ["chunking=Chunking()"] : []),
    ...(spans ? ["relevant_spans=RelevantSpans()"] : []),
  ];
}

function pythonPolicy(policy) {
  if (!policy) return [];
  return [typeof policy === "object" ? `policy=Policy("custom", ${policy.accept}, ${policy.review})` : `policy=${quote(policy)}`];
}

function cohere({ url, request, model, hasKey }) {
  const { query, document, documents, model: chosen, ...options } = request;
  const all = documentsOf(request);
  const hasImages = query.image || all.some(({ image }) => image);
  const list = (indent, write) => `[\n${all.map((each) => `${indent}    ${write(each)},\n`).join("")}${indent}]`;
  const encoded = (content) => contentJson(content, (file) => `encode(${quote(file.name)})`);
  const more = [
    ...(hasImages ? [`"query": ${encoded(query)}`, `"documents": ${list("            ", encoded)}`] : []),
    ...Object.entries(options).map(([name, value]) => `${quote(name)}: ${pythonLiteral(value)}`),
  ];
  return `${hasImages ? "import base64\n" : ""}${hasKey ? "import os\n" : ""}${hasImages ? "from pathlib import Path\n" : ""}${
    hasImages || hasKey ? "\n" : ""}import cohere

${hasImages ? `
def encode(name: str) -> str:
    return base64.b64encode(Path(name).read_bytes()).decode()


` : ""}client = cohere.ClientV2(api_key=${hasKey ? `os.environ["${KEY}"]` : '"none"'}, base_url=${quote(url)})
response = client.rerank(
    model=${quote(chosen ?? model)},
    query=${quote(query.text || "image")},
    documents=${hasImages ? "[],  # below: the client's own are texts alone" : `${list("    ", ({ text }) => quote(text))},`}
${more.length ? `    request_options={"additional_body_parameters": {
${more.map((each) => `        ${each},\n`).join("")}    }},
` : ""})
for result in response.results:
    print(result.index, f"{result.relevance_score:.4f}")
`;
}

function langchain({ url, request, hasKey }) {
  const { query, instruction, policy } = request;
  const all = documentsOf(request);
  if (query.image) return null;
  const options = [
    `url=${quote(url)}`,
    ...named(request),
    ...(hasKey ? [`headers={"x-api-key": os.environ["${KEY}"]}`] : []),
    ...(instruction ? [`instruction=${quote(instruction)}`] : []),
    ...pythonPolicy(policy),
    ...(all.some(({ image }) => image) ? ['image_key="image"'] : []),
  ];
  const make = ({ text, image }) =>
    `Document(${quote(text ?? "")}${image ? `, metadata={"image": Path(${quote(image.name)})}` : ""})`;
  return `${hasKey ? "import os\n" : ""}${all.some(({ image }) => image) ? "from pathlib import Path\n" : ""}${
    hasKey || all.some(({ image }) => image) ? "\n" : ""}from langchain_core.documents import Document
${typeof policy === "object" ? "from lychee_client import Policy\n" : ""}from lychee_client.integrations.langchain import LycheeRerank

documents = [
${all.map((each) => `    ${make(each)},\n`).join("")}]
compressor = LycheeRerank(${options.join(", ")})
for document in compressor.compress_documents(documents, ${quote(query.text)}):
    print(f"{document.metadata['relevance_score']:.4f}", document.metadata["decision"], document.page_content)
`;
}

/** The argument of a client that chooses one of several models. */
const named = ({ model }) => (model ? [`model=${quote(model)}`] : []);

const documentsOf = ({ documents, document }) => documents ?? [document];

function layOut({ query, document, documents, ...options }, write, literal) {
  const entries = [
    `"query": ${write(query)}`,
    document ? `"document": ${write(document)}` : `"documents": [\n${documents.map((each) => `    ${write(each)}`).join(",\n")}\n  ]`,
    ...Object.entries(options).map(([name, value]) => `${quote(name)}: ${literal(value)}`),
  ];
  return `{\n${entries.map((each) => `  ${each}`).join(",\n")}\n}`;
}

/** A query or document as JSON and Python both have it; `write` makes an expression of a file. */
function contentJson({ text, image }, write) {
  if (!image) return quote(text);
  return text ? `{"text": ${quote(text)}, "image": ${write(image)}}` : `{"image": ${write(image)}}`;
}

const json = (value) => JSON.stringify(value).replaceAll('":', '": ').replaceAll(',"', ', "');

/** A text as a literal of JSON and of Python; marks of our own cannot be in it. */
const quote = (text) => JSON.stringify(text ?? "").replaceAll(MARK, "\\ue000");

const quoteShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function pythonLiteral(value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  if (value && typeof value === "object") {
    return `{${Object.entries(value).map(([name, each]) => `${quote(name)}: ${pythonLiteral(each)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}
