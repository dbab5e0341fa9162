/**
 * The page in which `exporters.runners.chromium` lets artifacts answer: TF.js, onnxruntime-web and LiteRT.js in a real
 * browser, and the decoding and resizing of image files as the demo page does it.
 *
 * Python calls the functions of `globalThis.cutpoint`. What is long goes as bytes: requests are fetched from the
 * address that a call names, answers are `{parts, data}`, where `data` is all parts in base64, one after the other.
 * No backend stands in for another: what cannot be had is said.
 *
 * @typedef {import("./runtimes.js").Opened} Opened
 */

import { encodeCells, imageToRgb, imagesOf, loadArtifact, outputNodes, predict, resize } from "./predict.js";
import { openLitert, openOnnx } from "./runtimes.js";

const WARM_UPS = 2;
// How many images a model with a free batch axis is given at once.
const BATCH = 16;

/** @type {Opened | null} */
let opened = null;

async function bytesOf(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} was not served: ${response.status} ${response.statusText}`);
  return response.arrayBuffer();
}

/** TF.js's layers model: its layers come only where they are needed. */
async function loadLayers(tf, read) {
  const layers = await import("@tensorflow/tfjs-layers");
  const { loadLayersArtifact } = await import("./layers_model.js");
  return loadLayersArtifact(tf, layers, read);
}

/** TF.js: the graph model, read by the code that the demo page uses, or the layers model. */
async function openTfjs({ backend, threads, format }) {
  const core = await import("@tensorflow/tfjs-core");
  const { loadGraphModel } = await import("@tensorflow/tfjs-converter");
  core.enableProdMode();
  if (backend === "wasm") {
    const { setThreadsCount, setWasmPaths } = await import("@tensorflow/tfjs-backend-wasm");
    setWasmPaths(new URL(".", document.baseURI).href);
    setThreadsCount(threads);
  } else {
    await import("@tensorflow/tfjs-backend-webgl");
  }
  if (!(await core.setBackend(backend).catch(() => false))) {
    return { missing: `TF.js's backend '${backend}' cannot be started` };
  }
  const tf = { ...core, loadGraphModel };
  const load = format === "tfjs_layers" ? loadLayers : loadArtifact;
  const model = await load(tf, (path) => bytesOf(`artifact/${path}`));
  const outputs = [...outputNodes(model).keys()];
  return {
    version: core.version_core,
    backend: core.getBackend(),
    // WebGL compiles its programs anew for each size of a batch, which takes seconds.
    batch: backend === "webgl" ? 1 : null,
    inputs: model.inputNodes.map((name, i) => ({ name, dtype: model.inputs[i].dtype })),
    outputs,
    async answer(images) {
      const answers = Object.entries(await predict(tf, model, images));
      return answers.map(([name, answer]) => ({ name, dtype: "float32", ...answer }));
    },
  };
}

/** onnxruntime-web's WebAssembly build. */
async function openOnnxArtifact({ backend, threads }) {
  const libraries = new URL(".", document.baseURI);
  return openOnnx(await bytesOf("artifact/model.onnx"), { libraries, backend, threads });
}

/** LiteRT.js's WebAssembly build, one image at a time. */
async function openLitertArtifact({ backend, signature }) {
  const libraries = new URL(".", document.baseURI);
  return openLitert(await bytesOf("artifact/model.tflite"), { libraries, backend, signature });
}

const OPENERS = { tfjs: openTfjs, tfjs_layers: openTfjs, onnx: openOnnxArtifact, tflite: openLitertArtifact };

/** The images at an address, with their columns: see `imagesOf`. */
/** @type {(told: any) => Promise<import("./predict.js").Images>} */
const imagesAt = async ({ path, ...told }) => imagesOf(await bytesOf(path), told);

/** Of `count` rows that lie one behind the other, `size` from `at` on, the last one repeated where `fixed` asks for it. */
function rowsOf(data, count, at, size, fixed) {
  const each = data.length / count;
  const given = data.subarray(at * each, Math.min(at + size, count) * each);
  if (!fixed || given.length === size * each) return given;
  const filled = new data.constructor(size * each);
  for (let to = 0; to < size; to++) {
    filled.set(data.subarray(Math.min(at + to, count - 1) * each).subarray(0, each), to * each);
  }
  return filled;
}

/**
 * The images from `at` on, `size` of them, the last one repeated where there are fewer and the batch is fixed.
 *
 * @returns {import("./predict.js").Images}
 */
function batchOf(/** @type {import("./predict.js").Images} */ { data, shape: [count, ...shape], columns }, at, size, fixed) {
  const length = fixed ? size : Math.min(size, count - at);
  const batch = { data: rowsOf(data, count, at, size, fixed), shape: [length, ...shape] };
  return columns ? { ...batch, columns: rowsOf(columns, count, at, size, fixed) } : batch;
}

/** Arrays as one base64 text, with what they are. */
async function packed(parts) {
  const arrays = parts.map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  const text = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(new Blob(arrays));
  });
  const told = parts.map(({ data, ...rest }) => ({ ...rest, bytes: data.byteLength }));
  return { parts: told, data: text.slice(text.indexOf(",") + 1) };
}

globalThis.cutpoint = {
  /** Load the artifact that is served under artifact/; gives what is known of it, or says what is `missing` here. */
  async open(request) {
    opened = await OPENERS[request.format](request);
    const { answer, close, ...known } = opened;
    return known;
  },

  /** Answer images; gives one part for each output of each batch, in the order of the images. */
  async predict(request) {
    const images = await imagesAt(request);
    const size = opened.batch ?? BATCH;
    const answers = [];
    for (let at = 0; at < images.shape[0]; at += size) {
      const batch = batchOf(images, at, size, opened.batch !== null);
      answers.push(...(await opened.answer(batch)));
    }
    return packed(answers);
  },

  /** Answer one image again and again; gives the milliseconds of each time after the first few. */
  async time(request) {
    const images = await imagesAt(request);
    const one = batchOf(images, 0, opened.batch ?? 1, opened.batch !== null);
    const times_ms = [];
    for (let i = -WARM_UPS; i < request.repeats; i++) {
      const start = performance.now();
      await opened.answer(one);
      if (i >= 0) times_ms.push(performance.now() - start);
    }
    return times_ms;
  },

  /** Encode rows of cells, which lie at an address as JSON with the columns; gives one part, rows x columns. */
  async encode({ path }) {
    const { columns, rows } = JSON.parse(new TextDecoder().decode(await bytesOf(path)));
    const data = encodeCells(columns, rows);
    return packed([{ name: "columns", shape: [rows.length, columns.length], dtype: "float32", data }]);
  },

  /** Decode image files that lie one behind the other; gives two parts for each: decoded, then resized. */
  async decode({ path, sizes, first, resize: how }) {
    const bytes = await bytesOf(path);
    const made = [];
    let at = 0;
    for (const [number, size] of sizes.entries()) {
      const picture = await imageToRgb(new Blob([bytes.slice(at, at + size)])).catch((fault) => {
        throw new Error(`File ${first + number + 1} cannot be decoded: ${fault.message}`);
      });
      made.push(picture, resize(picture, how));
      at += size;
    }
    return packed(made.map(asPart));
  },

  /** Resize pictures of RGB bytes that lie one behind the other; gives one part for each. */
  async resize({ path, shapes, resize: how }) {
    const bytes = new Uint8Array(await bytesOf(path));
    let at = 0;
    const made = shapes.map(([height, width]) => {
      const data = bytes.subarray(at, (at += height * width * 3));
      return resize({ data, width, height }, how);
    });
    return packed(made.map(asPart));
  },
};

function asPart({ data, width, height }) {
  return { name: "", shape: [height, width, 3], dtype: "uint8", data };
}
