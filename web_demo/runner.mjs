/**
 * TF.js under Node for `exporters.runners.tfjs`: loads an artifact, then answers requests until its input closes.
 *
 *     node runner.mjs FOLDER BACKEND [graph-model | layers-model]
 *
 * A message, either way, is the length of a JSON header (4 bytes, little-endian), the header, and as many raw bytes as
 * its `bytes` says. The first answer tells of the loading, then one comes for each request:
 *
 *     {command: "predict", shape, dtype, columns?, outputs, bytes}         -> {outputs: [{name, shape}], tensors, bytes}
 *     {command: "nodes", shape, dtype, columns?, nodes, bytes}             -> {outputs: [{name, shape}], tensors, bytes}
 *     {command: "time", shape, dtype, columns?, outputs, repeats, bytes}   -> {times_ms, bytes: 0}
 *
 * The bytes of a request are pictures of that shape and dtype and, behind them, float32 columns of the shape `columns`; those
 * of an answer are float32. `tensors` counts what TF.js holds afterwards. What fails is answered by {error: "..."}.
 */

import { readFile } from "node:fs/promises";
import { dirname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";

import * as core from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import { loadGraphModel } from "@tensorflow/tfjs-converter";

import { imagesOf, inputTensors, loadArtifact, outputNodes, predict } from "./predict.js";

const tf = { ...core, loadGraphModel };
const WARM_UPS = 3;

/** Yield the messages of a byte stream as `{header, payload}`. */
async function* messages(stream) {
  const chunks = stream[Symbol.asyncIterator]();
  let rest = Buffer.alloc(0);
  const take = async (length) => {
    const parts = [rest];
    let have = rest.length;
    while (have < length) {
      const { value, done } = await chunks.next();
      if (done) return null;
      parts.push(value);
      have += value.length;
    }
    const all = parts.length === 1 ? rest : Buffer.concat(parts);
    rest = all.subarray(length);
    return all.subarray(0, length);
  };
  for (;;) {
    const length = await take(4);
    const text = length && (await take(length.readUInt32LE(0)));
    const header = text && JSON.parse(text.toString("utf8"));
    const payload = header && (await take(header.bytes));
    if (!payload) return;
    yield { header, payload };
  }
}

/** Write one message and wait until it has left. */
function send(header, arrays = []) {
  const payload = arrays.map((array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength));
  const bytes = payload.reduce((sum, part) => sum + part.length, 0);
  const text = Buffer.from(JSON.stringify({ ...header, bytes }), "utf8");
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.length);
  return new Promise((resolve) => process.stdout.write(Buffer.concat([length, text, ...payload]), resolve));
}

/** Load what the folder holds; TF.js's layers come only where they are needed. */
async function load(format, read) {
  if (format !== "layers-model") return loadArtifact(tf, read);
  const [layers, { loadLayersArtifact }] = await Promise.all([import("@tensorflow/tfjs-layers"), import("./layers_model.js")]);
  return loadLayersArtifact(tf, layers, read);
}

/** Load the artifact on the backend that is asked for; no other backend stands in for it. */
async function open(folder, backend, format) {
  core.enableProdMode();
  setWasmPaths(dirname(fileURLToPath(import.meta.url)) + sep);
  if (!(await core.setBackend(backend))) throw new Error(`The TF.js backend '${backend}' could not be started.`);
  const model = await load(format, async (path) => new Uint8Array(await readFile(join(folder, path))).buffer);
  const names = { input_names: model.inputNodes, output_names: [...outputNodes(model).keys()] };
  await send({ version: core.version_core, backend: core.getBackend(), ...names });
  return model;
}


/** What nodes of the graph, or layers, give, inner ones too, by name in the order that is asked for. */
async function valuesOf(model, images, nodes) {
  const inputs = inputTensors(core, model, images);
  let tensors = [];
  try {
    const result = model.execute(inputs, nodes);
    tensors = Array.isArray(result) ? result : [result];
    const values = await Promise.all(tensors.map((tensor) => tensor.data()));
    return Object.fromEntries(nodes.map((name, i) => [
      name,
      { data: Float32Array.from(values[i]), shape: tensors[i].shape },
    ]));
  } finally {
    core.dispose([...Object.values(inputs), ...tensors]);
  }
}

async function answer(model, header, payload) {
  const images = imagesOf(new Uint8Array(payload).buffer, header);
  if (header.command === "predict" || header.command === "nodes") {
    const answering =
      header.command === "predict" ? predict(tf, model, images, header.outputs) : valuesOf(model, images, header.nodes);
    const answers = Object.entries(await answering);
    const outputs = answers.map(([name, { shape }]) => ({ name, shape }));
    return send({ outputs, tensors: core.memory().numTensors }, answers.map(([, { data }]) => data));
  }
  const times = [];
  for (let i = -WARM_UPS; i < header.repeats; i++) {
    const start = performance.now();
    await predict(tf, model, images, header.outputs);
    if (i >= 0) times.push(performance.now() - start);
  }
  return send({ times_ms: times });
}

const saying = (fault) => ({ error: String(fault?.message ?? fault) });

/** Load, then serve; a model that does not load ends the process after saying why. */
async function main([folder, backend, format]) {
  let model;
  try {
    model = await open(folder, backend, format);
  } catch (fault) {
    return send(saying(fault));
  }
  for await (const { header, payload } of messages(process.stdin)) {
    await answer(model, header, payload).catch((fault) => send(saying(fault)));
  }
}

await main(process.argv.slice(2));
process.exit(0);
