/**
 * From pixels to an answer: the one implementation of it in JavaScript, used by the page, by the Node runner and by
 * tests.
 *
 * Nothing here imports a runtime: TensorFlow.js comes in as the argument `tf`, an object that holds what
 * `@tensorflow/tfjs-core` exports and `loadGraphModel` of `@tensorflow/tfjs-converter`, as `@tensorflow/tfjs` does.
 *
 * @typedef {{data: Uint8Array | Uint8ClampedArray | Float32Array, shape: number[], columns?: Float32Array}} Images
 *   N,H,W,3; values 0..255; `columns` N,C as `encodeCells` gives them, for a model that takes such
 * @typedef {{data: Float32Array, shape: number[]}} Answer
 * @typedef {{name: string, task: string, shape: number[], labels: string[], columns: string[], activation: string,
 *   unit: string}} Output
 * @typedef {{name: string, resize: import("./pixels.js").Resize, outputs: Output[], precision: string, cut: string[],
 *   created_from: string, backbone: {name: string, weights_sha256: string}, versions: Record<string, string>,
 *   columns?: import("./columns.js").Column[]}} Card
 */

import { encodeCells } from "./columns.js";
import { explain } from "./explain.js";
import { imageToRgb, resize } from "./pixels.js";

export { encodeCells } from "./columns.js";
export { classesOf, explain, topLabels } from "./explain.js";
export { imageToRgb, overWhite, resize, shownWindow } from "./pixels.js";

/** The name of the input that takes the columns beside the picture. */
export const COLUMNS_NAME = "columns";

const SHOWN_LABELS = 5;
const BYTES_OF = { float32: 4, int32: 4, bool: 1, complex64: 8, float16: 2, uint8: 1, uint16: 2 };

/** The name under which an artifact carries the cut point's output: no head, so no answer unless it is asked for. */
export const FEATURES_NAME = "features";

/** Whether an output of that name carries a cut's feature map: `features` the deepest one's, `features_...` another's. */
export const isFeatures = (name) => name === FEATURES_NAME || name.startsWith(`${FEATURES_NAME}_`);

/** The bytes that the weights of a manifest take, or NaN where they cannot be told without reading them. */
function manifestBytes(manifest) {
  const specs = manifest.flatMap((group) => group.weights);
  return specs.reduce((sum, { shape, dtype, quantization }) => {
    return sum + shape.reduce((product, n) => product * n, 1) * (BYTES_OF[quantization?.dtype ?? dtype] ?? NaN);
  }, 0);
}

/**
 * Read the files of an artifact over the network, for `loadArtifact`.
 *
 * @param {string | URL} url  where model.json is; the other files are beside it
 * @returns {(path: string) => Promise<ArrayBuffer>}
 */
export function fetchBeside(url) {
  return async (path) => {
    const response = await fetch(new URL(path, url));
    if (!response.ok) throw new Error(`${path} was not served: ${response.status} ${response.statusText}`);
    return response.arrayBuffer();
  };
}

/**
 * Read the files of a TF.js model.
 *
 * @param {any} tf  TensorFlow.js
 * @param {(path: string) => Promise<ArrayBuffer>} read  gives the bytes of a file that lies beside model.json
 * @param {"graph-model" | "layers-model"} format  what it must be
 * @returns {Promise<any>} `tf.io.ModelArtifacts`
 * @throws {Error} where model.json is of another format, a shard is missing, or the weights are not as long as it says
 */
export async function readArtifacts(tf, read, format) {
  const json = JSON.parse(new TextDecoder().decode(await read("model.json")));
  if (json?.format !== format || !json.modelTopology || !Array.isArray(json.weightsManifest)) {
    const wanted = format.replace("-", " ");
    throw new Error(`model.json is not a TF.js ${wanted} with a weights manifest (format: ${json?.format}).`);
  }
  const loadWeights = async (manifest) => {
    const shards = await Promise.all(manifest.flatMap((group) => group.paths).map(read));
    const bytes = shards.reduce((sum, shard) => sum + shard.byteLength, 0);
    const expected = manifestBytes(manifest);
    if (!Number.isNaN(expected) && bytes !== expected) {
      throw new Error(`The weight files hold ${bytes} bytes, and model.json describes ${expected}.`);
    }
    return [manifest.flatMap((group) => group.weights), tf.io.concatenateArrayBuffers(shards)];
  };
  return tf.io.getModelArtifactsForJSON(json, loadWeights);
}

/**
 * Load a TF.js graph model with its weights.
 *
 * @param {any} tf  TensorFlow.js
 * @param {(path: string) => Promise<ArrayBuffer>} read  gives the bytes of a file that lies beside model.json
 * @returns {Promise<any>} a `tf.GraphModel`
 * @throws {Error} where `readArtifacts` does, or the model cannot be loaded
 */
export async function loadArtifact(tf, read) {
  const artifacts = await readArtifacts(tf, read, "graph-model");
  return tf.loadGraphModel({ load: async () => artifacts });
}

/**
 * Which node computes each named output of a graph model.
 *
 * TF.js's own `model.predict` pairs the structured output keys with the outputs of the signature by position, and the
 * converter writes the signature in an order that changes from run to run: names then stand for each other's values.
 * That is refused. Where the signature has only node names (the converter loses the names of outputs of equal shape),
 * the answer is the one that `model.predict` gives.
 *
 * @param {any} model  a `tf.GraphModel`
 * @returns {Map<string, string>} from output name, sorted, to what `model.execute` calls it
 * @throws {Error} where the signature and the structured output keys contradict each other
 */
export function outputNodes(model) {
  const nodes = model.outputNodes;
  const names = model.modelStructuredOutputKeys ?? nodes;
  const contradictory = nodes.some((node, i) => node !== names[i] && names.includes(node));
  if (names.length !== nodes.length || contradictory) {
    throw new Error(
      `model.json lists the outputs ${nodes.join(", ")} in its signature and ${names.join(", ")} as ` +
        "structuredOutputKeys; TF.js pairs them by position, so both must be in the same order.",
    );
  }
  return new Map(names.map((name, i) => [name, nodes[i]]).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/**
 * Pictures and columns as they travel in bytes: the pictures first, then float32 columns of the shape `columns`, if any.
 *
 * @param {ArrayBuffer} bytes
 * @param {{shape: number[], dtype: "uint8" | "float32", columns?: number[]}} told
 * @returns {Images}
 */
export function imagesOf(bytes, { shape, dtype, columns }) {
  const end = shape.reduce((product, n) => product * n, BYTES_OF[dtype]);
  const pictures = columns ? bytes.slice(0, end) : bytes;
  const data = dtype === "float32" ? new Float32Array(pictures) : new Uint8Array(pictures);
  return columns ? { data, shape, columns: new Float32Array(bytes.slice(end)) } : { data, shape };
}

/**
 * Which input takes the picture and which the columns.
 *
 * @param {string[]} names  of all inputs
 * @param {Images} images  what they are to take
 * @returns {{image: string, columns?: string}}
 * @throws {Error} where columns are missing, there is no place for them, or the model takes something else
 */
export function inputNames(names, { columns }) {
  const others = names.filter((name) => name !== COLUMNS_NAME);
  const takesColumns = others.length < names.length;
  if (others.length !== 1) throw new Error(`The model takes ${names.join(", ")}; expected one picture, and columns at most.`);
  if (takesColumns && !columns) throw new Error("The model takes columns beside the picture, and none were given.");
  if (!takesColumns && columns) throw new Error("The model takes pictures alone, and columns were given.");
  return takesColumns ? { image: others[0], columns: COLUMNS_NAME } : { image: others[0] };
}

/** The tensors that a TF.js model takes of pictures, by the names of its inputs; whoever asks disposes of them. */
export function inputTensors(tf, model, images) {
  const { data, shape, columns } = images;
  const names = inputNames(model.inputNodes, images);
  const values = data instanceof Float32Array ? data : Float32Array.from(data);
  const tensors = { [names.image]: tf.tensor4d(values, shape, "float32") };
  if (columns) tensors[names.columns] = tf.tensor2d(columns, [shape[0], columns.length / shape[0]], "float32");
  return tensors;
}

/**
 * Let a model answer; every tensor that this makes is disposed of again.
 *
 * @param {any} tf  TensorFlow.js
 * @param {any} model  what `loadArtifact` gave
 * @param {Images} images
 * @param {string[]} [outputs]  which to compute; all heads, thus no features, by default
 * @returns {Promise<Record<string, Answer>>} by output name; shapes with the batch axis
 * @throws {Error} where an output is not there, or the images or their columns do not fit
 */
export async function predict(tf, model, images, outputs) {
  const nodes = outputNodes(model);
  const known = [...nodes.keys()];
  const names = outputs ?? known.filter((name) => !isFeatures(name));
  const missing = names.filter((name) => !nodes.has(name));
  if (missing.length > 0) throw new Error(`The model has no output ${missing.join(", ")}; it has ${known.join(", ")}.`);
  const inputs = inputTensors(tf, model, images);
  let tensors = [];
  try {
    const result = model.execute(inputs, names.map((name) => nodes.get(name)));
    tensors = Array.isArray(result) ? result : [result];
    /** @type {Record<string, Answer>} */
    const answers = {};
    for (const [i, name] of names.entries()) {
      answers[name] = { data: Float32Array.from(await tensors[i].data()), shape: tensors[i].shape };
    }
    return answers;
  } finally {
    tf.dispose([...Object.values(inputs), ...tensors]);
  }
}

/**
 * An artifact that answers pictures as they come: decoded, resized and with the cells of its columns looked up.
 *
 *     const predictor = await openPredictor(tf, fetchBeside("artifacts/tfjs-float32/model.json"));
 *     const { said } = await predictor.predict(file, { columns: { age: "40", skin: "dark" } });
 *
 * @typedef {{answers: Record<string, Answer>, said: Record<string, object>, seen: import("./explain.js").Seen,
 *   elapsed_ms: number}} Prediction  `answers` by output; `said` what `explain` makes of each; the picture; how long the model took
 *
 * @param {any} tf  TensorFlow.js, with a backend that is ready
 * @param {(path: string) => Promise<ArrayBuffer>} read  gives the bytes of a file that lies beside model.json
 * @param {Card} [card]  the artifact's; by default it is read from the card.json beside model.json
 * @returns {Promise<Predictor>}  `predict` takes a file or anything that can be drawn, `answer` a picture that is decoded
 *   already, and both the cells of its columns: those that are left out are unknown; `carriesFeatures`: whether there are such
 * @typedef {{columns?: import("./columns.js").Cells, top?: number, features?: boolean}} Beside  `top`: how many labels to
 *   give; `features`: whether `answers` shall have the cut point's output too
 * @typedef {{card: Card, carriesFeatures: boolean, predict: (source: Blob | ImageBitmapSource, beside?: Beside) => Promise<Prediction>,
 *   answer: (picture: import("./pixels.js").Picture, beside?: Beside) => Promise<Prediction>, dispose: () => void}} Predictor
 */
export async function openPredictor(tf, read, card) {
  const known = card ?? JSON.parse(new TextDecoder().decode(await read("card.json")));
  const model = await loadArtifact(tf, read);
  const names = [...outputNodes(model).keys()];
  const withFeatures = names.filter((name) => name === FEATURES_NAME || !isFeatures(name));
  async function answer(picture, { columns: cells = {}, top = SHOWN_LABELS, features = false } = {}) {
    const encoded = encodeCells(known.columns ?? [], [cells]);
    const { data, width, height } = resize(picture, known.resize);
    const columns = known.columns?.length ? { columns: encoded } : {};
    const start = performance.now();
    const wanted = features ? withFeatures : undefined;
    const answers = await predict(tf, model, { data, shape: [1, height, width, 3], ...columns }, wanted);
    const elapsed_ms = performance.now() - start;
    const seen = { width: picture.width, height: picture.height, resize: known.resize };
    const outputs = known.outputs.filter(({ name }) => name in answers);
    const said = Object.fromEntries(outputs.map((each) => [each.name, explain(answers[each.name].data, each, seen, top)]));
    return { answers, said, seen, elapsed_ms };
  }
  const decoded = async (source, beside) => answer(await imageToRgb(source), beside);
  const carriesFeatures = names.includes(FEATURES_NAME);
  return { card: known, carriesFeatures, predict: decoded, answer, dispose: () => model.dispose() };
}
