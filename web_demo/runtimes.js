/**
 * TFLite and ONNX in a browser: LiteRT.js and onnxruntime-web behind one face, for the page that verifies artifacts and for
 * the demo page when it is asked for them. Both libraries are fetched when a model is opened, not before.
 *
 * @typedef {{name: string, shape: readonly number[], dtype: string, data: any}} Part  `data`: a typed array of `dtype`
 * @typedef {{version: string, backend: string, batch: number | null, inputs: {name: string, dtype: string}[],
 *   outputs: string[], answer: (images: import("./predict.js").Images) => Promise<Part[]>, close: () => Promise<void>}} Opened
 *   `batch`: how many pictures it takes at once, null for any number; `answer` gives every output but features
 */

import { COLUMNS_NAME, inputNames, isFeatures } from "./predict.js";

/**
 * Open an ONNX model in onnxruntime-web's WebAssembly build, by the names of inputs and outputs.
 *
 * @param {ArrayBuffer} model
 * @param {{libraries: string | URL, backend?: string, threads?: number}} how  `libraries`: the folder of the wasm files
 * @returns {Promise<Opened>}
 */
export async function openOnnx(model, { libraries, backend = "wasm", threads = 1 }) {
  const ort = await import("onnxruntime-web/wasm");
  ort.env.wasm.wasmPaths = String(libraries);
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(new Uint8Array(model), {
    executionProviders: [backend], logSeverityLevel: 3,
  });
  /** @type {any[]} */
  const metadata = [...session.inputMetadata];
  const inputs = metadata.map(({ name, type }) => ({ name, dtype: type }));
  const fixed = metadata.find(({ name }) => name !== COLUMNS_NAME)?.shape?.[0];
  const heads = session.outputNames.filter((name) => !isFeatures(name));
  return {
    version: ort.env.versions.web,
    backend,
    batch: Number.isInteger(fixed) && fixed > 0 ? fixed : null,
    inputs,
    outputs: [...session.outputNames],
    async answer(images) {
      const { data, shape, columns } = images;
      const names = inputNames([...session.inputNames], images);
      const fed = { [names.image]: new ort.Tensor("float32", Float32Array.from(data), shape) };
      if (columns) fed[names.columns] = new ort.Tensor("float32", columns, [shape[0], columns.length / shape[0]]);
      const answers = await session.run(fed, heads);
      return heads.map((name) => ({ name, shape: answers[name].dims, dtype: answers[name].type, data: answers[name].data }));
    },
    close: () => session.release(),
  };
}

/**
 * Open a TFLite model in LiteRT.js's WebAssembly build, one image at a time, by the names of a signature.
 *
 * @param {ArrayBuffer} model  whose batch is 1
 * @param {{libraries: string | URL, signature: string, backend?: "wasm" | "webgpu" | "webnn"}} how  `libraries`: the folder of the wasm files
 * @returns {Promise<Opened>}
 */
export async function openLitert(model, { libraries, signature, backend = "wasm" }) {
  const { Tensor, loadAndCompile, loadLiteRt } = await import("@litertjs/core");
  await startLitert(loadLiteRt, String(libraries));
  const compiled = await loadAndCompile(new Uint8Array(model), { accelerator: backend, cpuOptions: { numThreads: 1 } });
  const runner = compiled.signatures[signature];
  if (!runner) throw new Error(`The model has the signatures ${Object.keys(compiled.signatures)}, not ${signature}.`);
  const inputs = runner.getInputDetails().map(({ name, dtype }) => ({ name, dtype }));
  const outputs = runner.getOutputDetails();
  const heads = outputs.filter(({ name }) => !isFeatures(name));
  return {
    version: LITERT_VERSION,
    backend,
    batch: 1,
    inputs,
    outputs: outputs.map(({ name }) => name),
    async answer(images) {
      const { data, shape, columns } = images;
      const names = inputNames(inputs.map(({ name }) => name), images);
      const { dtype } = inputs.find(({ name }) => name === names.image);
      const fed = { [names.image]: new Tensor(dtype === "uint8" ? Uint8Array.from(data) : Float32Array.from(data), shape) };
      if (columns) fed[names.columns] = new Tensor(Float32Array.from(columns), [shape[0], columns.length / shape[0]]);
      let answers = {};
      try {
        answers = await runner.run(fed);
        return heads.map(({ name, dtype }) => {
          const { type } = answers[name];
          return { name, shape: [...type.layout.dimensions], dtype, data: answers[name].toTypedArray().slice() };
        });
      } finally {
        for (const tensor of [...Object.values(fed), ...Object.values(answers)]) tensor.delete();
      }
    },
    close: async () => compiled.delete(),
  };
}

/** @type {Promise<unknown> | null} */
let started = null;

// LiteRT.js tells on the console, as errors, what it starts.
const CHATTER = /^(INFO|WARNING):/;

/** LiteRT.js may be started once in a page; a start that failed may be tried again. */
function startLitert(loadLiteRt, libraries) {
  if (started) return started;
  // It takes its Emscripten module from here, and away again when it has started.
  globalThis.Module = { printErr: (line) => CHATTER.test(line) || console.error(line) };
  started = loadLiteRt(libraries, { threads: false }).catch((fault) => {
    started = null;
    throw fault;
  });
  return started;
}
