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

import { fetchBeside, openPredictor } from "./predict.js";

/** What the functions of predict.js take as `tf`. */
export const tf = { ...core, loadGraphModel };

/** Backend -> what a person calls it, and what has to be fetched for it. */
export const BACKENDS = {
  wasm: { title: "WebAssembly", fetch: async () => {} },
  webgl: { title: "WebGL", fetch: () => import("@tensorflow/tfjs-backend-webgl") },
  cpu: { title: "Plain JavaScript", fetch: () => import("@tensorflow/tfjs-backend-cpu") },
};

let last = Promise.resolve();
/** @type {Loaded | null} */
let loaded = null;

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

/**
 * Make TF.js compute with a backend.
 *
 * @throws {Error} where this browser has no such one
 */
export async function useBackend(name) {
  await BACKENDS[name].fetch();
  if (!(await core.setBackend(name).catch(() => false))) {
    throw new Error(`This browser cannot compute with ${BACKENDS[name].title}. Choose another one.`);
  }
}

/**
 * Start a backend and load an artifact into it, where that is not done already; what was loaded before is disposed of.
 *
 * @param {Listed} listed
 * @param {string} backend  a key of BACKENDS
 * @returns {Promise<Loaded>}  with its kernels compiled: it has answered a picture
 * @throws {Error} where the backend cannot be had or the model cannot be loaded
 */
export async function load(listed, backend) {
  if (loaded?.listed === listed && loaded.backend === backend && core.getBackend() === backend) return loaded;
  loaded?.predictor.dispose();
  loaded = null;
  await useBackend(backend);
  const beside = fetchBeside(new URL(listed.model, document.baseURI));
  const predictor = await openPredictor(tf, beside, listed.card).catch((fault) => {
    throw new Error(`The model ${listed.name} could not be loaded: ${fault.message}`);
  });
  const { width, height } = listed.card.resize;
  // The first answer compiles kernels; it should not be a user's.
  await predictor.answer({ data: new Uint8Array(height * width * 3), width, height });
  loaded = { predictor, listed, backend };
  return loaded;
}
