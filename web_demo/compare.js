/**
 * One picture, three formats, three runtimes: TF.js beside LiteRT.js and onnxruntime-web, in one table. Fetched when it is
 * asked for, as the two libraries and their models are.
 *
 * @typedef {{name: string, format: string, model: string, size_bytes: number, card: import("./predict.js").Card,
 *   signature?: string, inputs?: Record<string, Stored>, outputs?: Record<string, Stored>, batch_at?: number[]}} Other
 * @typedef {{dtype: string, scale: number, zero_point: number}} Stored  value = scale * (stored - zero_point)
 * @typedef {Record<string, Float32Array>} Values  by output
 * @typedef {{artifact: string, runtime: string, values: Values, said: Record<string, object>, times_ms: number[]}} Row
 */

import { element, sentence } from "./answers.js";
import { encodeCells, explain, imageToRgb, inputNames, resize } from "./predict.js";
import { openLitert, openOnnx } from "./runtimes.js";

/** How a tensor that is no quantised one is stored. @type {Stored} */
const REAL = { dtype: "float32", scale: 1, zero_point: 0 };
const WARM_UPS = 2;
const REPEATS = 9;

/** Format -> the library's name, and what opens a model in it. */
const RUNTIMES = {
  tflite: { library: "LiteRT.js", open: (model, other, libraries) => openLitert(fixed(model, other), { libraries, signature: other.signature }) },
  onnx: { library: "onnxruntime-web", open: (model, _, libraries) => openOnnx(model, { libraries }) },
};

/** A TFLite model with a batch of one in place of any number: LiteRT.js wants that. */
function fixed(model, { batch_at: places }) {
  const view = new DataView(model);
  for (const place of places) view.setInt32(place, 1, true);
  return model;
}

/** The models that are open, by their name: the next comparison needs not load them again. */
const open = new Map();

/**
 * Open an artifact in its runtime.
 *
 * @param {Other} other
 * @param {string | URL} libraries  the folder of the libraries' files
 * @returns {Promise<{format: string, library: string, runtime: import("./runtimes.js").Opened}>}
 * @throws {Error} where it, or its library, cannot be loaded
 */
async function opened(other, libraries) {
  if (open.has(other.name)) return open.get(other.name);
  for (const [name, { format, runtime }] of open) {
    if (format !== other.format) continue;
    open.delete(name);
    await runtime.close();
  }
  const { library, open: start } = RUNTIMES[other.format];
  try {
    const response = await fetch(new URL(other.model, document.baseURI));
    if (!response.ok) throw new Error(`${other.model} was not served: ${response.status} ${response.statusText}`);
    const found = { format: other.format, library, runtime: await start(await response.arrayBuffer(), other, libraries) };
    open.set(other.name, found);
    return found;
  } catch (fault) {
    const what = String(fault.message ?? fault).replace(/\.$/, "");
    throw new Error(`${other.name} could not be loaded into ${library}: ${what}. Reload the page, or choose another one.`);
  }
}

/** Pixels as a model takes them: bytes of its own scale where it takes bytes, halves to the even one, as Python rounds. */
function stored(data, { dtype, scale, zero_point: zero } = REAL) {
  if (dtype !== "uint8") return data;
  return Float32Array.from(data, (value) => Math.min(255, Math.max(0, toEven(value / scale) + zero)));
}

function toEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

function realOf(data, { dtype, scale, zero_point: zero } = REAL) {
  return Float32Array.from(data, dtype === "float32" ? Number : (value) => (value - zero) * scale);
}

/** Let one runtime answer a picture again and again. */
async function measured(other, { library, runtime }, picture, cells) {
  const { card } = other;
  const { data, width, height } = resize(picture, card.resize);
  /** @type {any} */
  const columns = card.columns?.length ? { columns: encodeCells(card.columns, [cells]) } : {};
  const image = inputNames(runtime.inputs.map(({ name }) => name), columns).image;
  const images = { data: stored(data, other.inputs?.[image]), shape: [1, height, width, 3], ...columns };
  const { result, times_ms } = await timed(() => runtime.answer(images));
  const values = Object.fromEntries(result.map((part) => [part.name, realOf(part.data, other.outputs?.[part.name])]));
  return { artifact: other.name, runtime: `${library} ${runtime.version}`, values, said: saidOf(values, card, picture), times_ms };
}

function saidOf(values, { outputs, resize: how }, { width, height }) {
  const heads = outputs.filter(({ name }) => name in values);
  return Object.fromEntries(heads.map((each) => [each.name, explain(values[each.name], each, { width, height, resize: how }, 1)]));
}

async function timed(answer) {
  const times_ms = [];
  let result;
  for (let i = -WARM_UPS; i < REPEATS; i++) {
    const begun = performance.now();
    result = await answer();
    // TF.js's answer tells its own time, without the resizing.
    if (i >= 0) times_ms.push(result.elapsed_ms ?? performance.now() - begun);
  }
  return { result, times_ms };
}

/** The largest difference between two answers; every head of one must be in the other. */
function difference(one, other) {
  const names = Object.keys(one);
  if (names.length === 0 || names.some((name) => other[name]?.length !== one[name].length)) return NaN;
  return Math.max(...names.map((name) => one[name].reduce((most, value, i) => Math.max(most, Math.abs(value - other[name][i])), 0)));
}

/**
 * Let TF.js and other artifacts answer one picture.
 *
 * @param {{picture: ImageBitmapSource, cells: import("./columns.js").Cells, others: Other[], version: string,
 *   inTurn: <T>(task: () => Promise<T>) => Promise<T>, prepare: () => Promise<import("./engine.js").Loaded>}} asked
 *   `version` of TF.js; `prepare` gives its model
 * @returns {Promise<Row[]>}  TF.js's first
 * @throws {Error} where a model or the picture cannot be had
 */
export async function compare({ picture, cells, others, version, inTurn, prepare }) {
  const libraries = new URL("parity/", document.baseURI);
  const runtimes = [];
  for (const other of others) runtimes.push(await opened(other, libraries));
  const decoded = await imageToRgb(picture);
  return inTurn(async () => {
    const { predictor, listed, backend } = await prepare();
    const { result, times_ms } = await timed(() => predictor.answer(decoded, { columns: cells }));
    const values = Object.fromEntries(Object.entries(result.answers).map(([name, { data }]) => [name, data]));
    const rows = [{ artifact: listed.name, runtime: `TF.js ${version}, ${backend}`, values, said: result.said, times_ms }];
    for (const [i, other] of others.entries()) rows.push(await measured(other, runtimes[i], decoded, cells));
    return rows;
  });
}

/**
 * Show what `compare` found.
 *
 * @param {HTMLTableSectionElement} body  of a table: artifact, answer, milliseconds, largest difference
 * @param {Row[]} rows
 * @param {string} head  whose answer is shown
 */
export function showRows(body, rows, head) {
  body.replaceChildren(...rows.map(({ artifact, runtime, values, said, times_ms }, i) => {
    const median = [...times_ms].sort((a, b) => a - b)[Math.floor(times_ms.length / 2)];
    const off = i === 0 ? null : difference(rows[0].values, values);
    const name = element("th", "", artifact, element("span", "runtime", runtime));
    name.scope = "row";
    const words = [sentence(said[head], head), `${median.toFixed(1)} ms`, off === null ? "–" : off.toExponential(1)];
    const row = element("tr", "", name, ...words.map((text) => element("td", "", text)));
    const [likeliest] = said[head].top ?? [];
    Object.assign(row.dataset, { artifact, median: median.toFixed(3), ...(off === null ? {} : { difference: String(off) }) });
    if (likeliest) Object.assign(row.dataset, { label: likeliest.label, probability: String(likeliest.probability) });
    return row;
  }));
}

/** What has to be fetched before these can be compared, in bytes, the libraries aside. */
export const bytesOf = (others) => others.filter(({ name }) => !open.has(name)).reduce((sum, { size_bytes }) => sum + size_bytes, 0);
