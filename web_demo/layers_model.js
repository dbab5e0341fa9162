/**
 * TF.js layers models for the code that lets graph models answer: one that is loaded has the few members of a graph model
 * that `predict.js` uses. Only what judges artifacts loads it, so that pages stay as small as they are.
 */

import { readArtifacts } from "./predict.js";

/**
 * Load a TF.js layers model with its weights.
 *
 * @param {any} tf  TensorFlow.js
 * @param {any} layers  what `@tensorflow/tfjs-layers` exports
 * @param {(path: string) => Promise<ArrayBuffer>} read  gives the bytes of a file that lies beside model.json
 * @returns {Promise<{inputNodes: string[], inputs: any[], outputNodes: string[], execute: Function, dispose: Function}>}
 *   `execute` takes names of outputs, those of the cuts included, and of layers
 * @throws {Error} where model.json is no layers model, a shard is missing, or the weights do not fit
 */
export async function loadLayersArtifact(tf, layers, read) {
  const artifacts = await readArtifacts(tf, read, "layers-model");
  const model = await layers.loadLayersModel({ load: async () => artifacts });
  const tensors = new Map(model.outputNames.map((name, i) => [name, model.outputs[i]]));
  for (const [name, { name: layer }] of Object.entries(artifacts.signature?.outputs ?? {})) {
    if (!tensors.has(name)) tensors.set(name, model.getLayer(layer).output);
  }
  const parts = new Map();
  const partOf = (names) => {
    const key = JSON.stringify(names);
    if (!parts.has(key)) {
      const outputs = names.map((name) => tensors.get(name) ?? model.getLayer(name).output);
      parts.set(key, layers.model({ inputs: model.inputs, outputs }));
    }
    return parts.get(key);
  };
  return {
    inputNodes: [...model.inputNames],
    inputs: model.inputs,
    outputNodes: [...tensors.keys()],
    execute: (inputs, names) => partOf(names).predictOnBatch(model.inputNames.map((name) => inputs[name])),
    dispose: () => model.dispose(),
  };
}
