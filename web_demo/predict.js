/**
 * From pixels to an answer: the one implementation of it in JavaScript, used by the page, by the Node runner and by
 * tests.
 *
 * Nothing here imports a runtime: TensorFlow.js comes in as the argument `tf`, an object that holds what
 * `@tensorflow/tfjs-core` exports and `loadGraphModel` of `@tensorflow/tfjs-converter`, as `@tensorflow/tfjs` does.
 *
 * @typedef {{data: Uint8Array | Uint8ClampedArray | Float32Array, shape: number[]}} Images  N,H,W,3; values 0..255
 * @typedef {{data: Float32Array, shape: number[]}} Answer
 * @typedef {{name: string, task: string, shape: number[], labels: string[], columns: string[], activation: string,
 *   unit: string}} Output
 * @typedef {{name: string, resize: import("./pixels.js").Resize, outputs: Output[], precision: string}} Card
 */

export { classesOf, explain, topLabels } from "./explain.js";
export { imageToRgb, overWhite, resize, shownWindow } from "./pixels.js";

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
 * Load a TF.js graph model with its weights.
 *
 * @param {any} tf  TensorFlow.js
 * @param {(path: string) => Promise<ArrayBuffer>} read  gives the bytes of a file that lies beside model.json
 * @returns {Promise<any>} a `tf.GraphModel`
 * @throws {Error} where model.json is no graph model, a shard is missing, or the weights are not as long as it says
 */
export async function loadArtifact(tf, read) {
  const json = JSON.parse(new TextDecoder().decode(await read("model.json")));
  if (json?.format !== "graph-model" || !json.modelTopology || !Array.isArray(json.weightsManifest)) {
    throw new Error(`model.json is not a TF.js graph model with a weights manifest (format: ${json?.format}).`);
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
  const artifacts = await tf.io.getModelArtifactsForJSON(json, loadWeights);
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
 * Let a model answer; every tensor that this makes is disposed of again.
 *
 * @param {any} tf  TensorFlow.js
 * @param {any} model  what `loadArtifact` gave
 * @param {Images} images
 * @param {string[]} [outputs]  which to compute; all heads, thus no features, by default
 * @returns {Promise<Record<string, Answer>>} by output name; shapes with the batch axis
 * @throws {Error} where an output is not there, or the images do not fit
 */
export async function predict(tf, model, images, outputs) {
  const nodes = outputNodes(model);
  const known = [...nodes.keys()];
  const names = outputs ?? known.filter((name) => !isFeatures(name));
  const missing = names.filter((name) => !nodes.has(name));
  if (missing.length > 0) throw new Error(`The model has no output ${missing.join(", ")}; it has ${known.join(", ")}.`);
  const values = images.data instanceof Float32Array ? images.data : Float32Array.from(images.data);
  const input = tf.tensor4d(values, images.shape, "float32");
  let tensors = [];
  try {
    const result = model.execute(input, names.map((name) => nodes.get(name)));
    tensors = Array.isArray(result) ? result : [result];
    const answers = {};
    for (const [i, name] of names.entries()) {
      answers[name] = { data: Float32Array.from(await tensors[i].data()), shape: tensors[i].shape };
    }
    return answers;
  } finally {
    tf.dispose([input, tensors]);
  }
}
