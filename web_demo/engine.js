/**
 * TF.js as the page uses it: its backends, the one artifact that is loaded, and one task after another.
 *
 * TF.js has a single backend at a time for everything, so whoever computes does so inside `inTurn`.
 *
 * @typedef {{name: string, model: string, size_bytes: number, card: import("./predict.js").Card}} Listed
 * @typedef {{predictor: import("./predict.js").Predictor, listed: Listed, backend: string}} Loaded
 */

import * as core from "@tensorflow/tfjs-core";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import { loadGraphModel } from "@tensorflow/tfjs-converter";

import { LOST, fetched, loadingOf, memoryOr } from "./faults.js";
import { fetchCounted } from "./loading.js";
import { openPredictor } from "./predict.js";

/** What the functions of predict.js take as `tf`. */
export const tf = { ...core, loadGraphModel };

/** Backend -> what a person calls it, what has to be fetched for it, and, where that has to be found out, whether it is there. */
export const BACKENDS = {
  wasm: { title: "WebAssembly", fetch: async () => {} },
  webgl: { title: "WebGL", fetch: () => import("@tensorflow/tfjs-backend-webgl") },
  cpu: { title: "Plain JavaScript", fetch: () => import("@tensorflow/tfjs-backend-cpu") },
  webgpu: { title: "WebGPU", fetch: () => import("@tensorflow/tfjs-backend-webgpu"), there: hasGpuAdapter },
};

let last = Promise.resolve();
/** @type {Loaded | null} */
let loaded = null;
/** Of the backend webgl, once it was started. @type {WebGL2RenderingContext | null} */
let context = null;

/** Get TF.js ready for a page; the WebAssembly files are beside it. */
export function startEngine() {
  setWasmPaths(new URL(".", document.baseURI).href);
  core.enableProdMode();
}

/**
 * Run a task when those that were given before are done.
 *
 * @template T
 * @param {() => Promise<T>} task  which must not wait for another one in turn
 * @returns {Promise<T>}
 */
export function inTurn(task) {
  const result = last.then(task);
  last = result.then(() => {}, () => {});
  return result;
}

/** Whether there is a WebGPU adapter. */
async function hasGpuAdapter() {
  if (!navigator.gpu) return false;
  const worker = new Worker(new URL("adapter.js", document.baseURI));
  try {
    return await new Promise((resolve) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = () => resolve(false);
    });
  } finally {
    worker.terminate();
  }
}

/** What TF.js holds: tensors, and bytes in them. */
export function held() {
  const { numTensors, numBytes } = core.memory();
  return { tensors: numTensors, bytes: numBytes };
}

/**
 * Make TF.js compute with a backend.
 *
 * @throws {Error} where this browser has no such one
 */
export async function useBackend(name) {
  await fetched(`What computes with ${BACKENDS[name].title}`, BACKENDS[name].fetch());
  if (context?.isContextLost()) forgetWebgl();
  if (!(await core.setBackend(name).catch(() => false))) {
    throw new Error(`This browser cannot compute with ${BACKENDS[name].title}. Choose another one.`);
  }
  if (name === "webgl") context = /** @type {any} */ (core.backend()).getGPGPUContext().gl;
}

/** The WebGL context that computes, where it is WebGL that does. */
const webgl = () => (core.getBackend() === "webgl" ? context : null);

/** Let go of a backend whose context is lost, so that it is started anew when it is asked for again. */
function forgetWebgl() {
  const factory = core.findBackendFactory("webgl");
  loaded?.predictor.dispose();
  loaded = context = null;
  core.removeBackend("webgl");
  core.registerBackend("webgl", factory);
}

/** Compute, and fail where WebGL's context is lost meanwhile: TF.js would wait for the answer for ever. */
function whileThere(work) {
  const canvas = webgl()?.canvas;
  return new Promise((resolve, reject) => {
    const lost = () => {
      forgetWebgl();
      reject(new Error(LOST));
    };
    canvas?.addEventListener("webglcontextlost", lost, { once: true });
    const done = work().finally(() => canvas?.removeEventListener("webglcontextlost", lost));
    done.then(resolve, (fault) => reject(memoryOr(fault)));
  });
}

/**
 * Start a backend and load an artifact into it, where that is not done already; what was loaded before is disposed of.
 *
 * @param {Listed} listed
 * @param {string} backend  a key of BACKENDS
 * @param {{began: (bytes: number) => void, arrived: (bytes: number) => void, ended: () => void}} [loading]  told how far it is
 * @returns {Promise<Loaded>}  with its kernels compiled: it has answered a picture
 * @throws {Error} where the backend cannot be had or the model cannot be loaded
 */
export async function load(listed, backend, loading) {
  const there = loaded?.listed === listed && loaded.backend === backend && core.getBackend() === backend;
  if (there && !webgl()?.isContextLost()) return loaded;
  loading?.began(listed.size_bytes);
  try {
    loaded?.predictor.dispose();
    loaded = null;
    await useBackend(backend);
    const beside = fetchCounted(new URL(listed.model, document.baseURI), (bytes) => loading?.arrived(bytes));
    const opened = await openPredictor(tf, beside, listed.card).catch((fault) => {
      throw loadingOf(listed.name, fault);
    });
    /** @type {Function[]} */
    const asked = [opened.answer, opened.predict];
    const [answer, predict] = asked.map((each) => (...given) => whileThere(() => each(...given)));
    const predictor = { ...opened, answer, predict };
    // The first answer compiles kernels; it should not be a user's.
    await predictor.answer(blank(listed.card.resize)).catch((fault) => {
      opened.dispose();
      throw fault;
    });
    loaded = { predictor, listed, backend };
    return loaded;
  } catch (fault) {
    throw memoryOr(fault);
  } finally {
    loading?.ended();
  }
}

const blank = ({ width, height }) => ({ data: new Uint8Array(height * width * 3), width, height });
