/**
 * Compares the answers of an artifact with those of the Keras model: the same rules as `exporters/parity.py`, so that
 * the page cannot pass what Python refuses. Pure arithmetic; knows no format and no browser.
 *
 * @typedef {import("../../predict.js").Answer} Answer
 * @typedef {import("../../predict.js").Output} Output
 * @typedef {import("./gates.js").Limits} Limits
 * @typedef {{data: ArrayLike<number>, shape: number[]}} Values  the first axis being the pictures
 * @typedef {{sampled?: boolean, refusesTies?: boolean}} Options  `sampled`: the pictures are a few of a set on which
 *   another runtime was judged: its accuracy is not judged again, and agreement fails where more pictures disagree than
 *   the limit allows by chance; `refusesTies`: near-ties over their share decide nothing, by default but of a sample
 * @typedef {{status: string, reason: string, figures: Record<string, any>}} Comparison
 */

import { judgeDecisions } from "./decisions.js";
import { judgeEmbedding } from "./embedding.js";
import {
  DECIDED, DEGENERATE, FAILED, FINE, LARGEST_SHARE_OF_NEAR_TIES, NOT_VERIFIED, brief, endingByTruth, judgeAgreement,
  judgeDifference, judgeFall, percent,
} from "./gates.js";
import { judgeMaps } from "./maps.js";
import { argmax, differences, isNearTie, largest, logMaxAbs, mean, variation } from "./measures.js";
import { judgeBoxes, judgeRegression, nothingVaries } from "./numbers.js";

export { DEGENERATE, FAILED, NOT_ENOUGH_IMAGES, NOT_VERIFIED, VERIFIED, worst } from "./gates.js";

/** A reference that moves by less than this over all pictures would agree with a constant. */
const LEAST_VARIATION = 1e-3;
/** Limit -> what holds where a manifest does not name it. */
const UNNAMED = {
  max_abs: null, agreement: null, accuracy_drop: null, relative_error: null, log_max_abs: null, confidence_shift: null,
  least_cosine: null, neighbours: null, iou: null, worst_relative_error: null,
};

/**
 * Read the limits of a manifest.
 *
 * @param {Record<string, number | null>} data
 * @returns {Limits}
 * @throws {Error} where a limit is unknown, no number of 0 or more, or missing
 */
export function limitsOf(data) {
  for (const [name, value] of Object.entries(data)) {
    if (!Object.hasOwn(UNNAMED, name)) throw new Error(`there is no limit ${name}`);
    if (value !== null && !(Number.isFinite(value) && value >= 0)) throw new Error(`the limit ${name} is ${value}`);
  }
  const limits = { ...UNNAMED, ...data };
  const missing = ["agreement", "relative_error"].find((name) => limits[name] === null);
  if (missing) throw new Error(`the limit ${missing} is missing`);
  return limits;
}

/**
 * Compare every output that the reference has.
 *
 * @param {Record<string, Values>} reference  of the Keras model, by output
 * @param {Record<string, Values>} answers  of the artifact, on the same pictures
 * @param {Output[]} outputs  what the card promises
 * @param {Limits} limits
 * @param {Record<string, Values>} [truth]  what is true of each picture, by output
 * @param {Options} [options]
 * @returns {Record<string, Comparison>}  by output
 */
export function compare(reference, answers, outputs, limits, truth = {}, options = {}) {
  const of = (values, name) => (Object.hasOwn(values, name) ? values[name] : null);
  const promised = new Map(outputs.map((output) => [output.name, output]));
  const names = new Set([...Object.keys(reference), ...Object.keys(answers), ...promised.keys()]);
  const judged = (name) => {
    const [expected, answer, output] = [of(reference, name), of(answers, name), promised.get(name)];
    if (!expected && answer) return ending(FAILED, `the artifact has an output '${name}' that the Keras model has not`);
    if (!expected) return ending(NOT_VERIFIED, `there are no reference answers for '${name}': nothing was compared`);
    if (!output) return ending(FAILED, `the card does not promise the output '${name}'`);
    if (!answer) return ending(FAILED, `the artifact has no output '${name}'`);
    return compareOutput(expected, answer, output, limits, of(truth, name), options);
  };
  return Object.fromEntries([...names].sort().map((name) => [name, judged(name)]));
}

const ending = (status, reason, figures = {}) => ({ status, reason, figures });

/**
 * Compare one output; see `compare`.
 *
 * @param {Values} expected
 * @param {Values} answer
 * @param {Output} told
 * @param {Limits} all
 * @param {Values | null} truth
 * @param {Options} [options]
 * @returns {Comparison}
 */
export function compareOutput(expected, answer, told, all, truth, { sampled = false, refusesTies = !sampled } = {}) {
  // A softmax at every place, as a model made elsewhere may have, is a label map by another name.
  const output = told.task === "multiclass" && told.shape.length > 1 ? { ...told, task: "segmentation" } : told;
  const refusal = refusalOf(expected, answer, output, all);
  if (refusal) return refusal;
  // A few pictures cannot judge an accuracy.
  const limits = sampled ? { ...all, accuracy_drop: null } : all;
  const rows = { expected: rowsOf(expected), answer: rowsOf(answer), truth: truth && rowsOf(truth) };
  const gaps = differences(rows.expected, rows.answer);
  const figures = { task: output.task, limits, smallest_passing_limits: {}, ...gaps };
  figures.smallest_passing_limits.max_abs = figures.max_abs;
  const still = `the answer is the same for all ${rows.answer.length} images`;
  // By agreement alone, a constant would pass where the pictures nearly all bear one label.
  const faults = variation(rows.answer) > 0 ? [] : [still];
  const found = judge({ ...rows, output, limits, figures, sampled, refusesTies });
  faults.push(...found.faults);
  return faults.length > 0 ? ending(FAILED, faults.join("; "), figures) : ending(...found.ending, figures);
}

function rowsOf({ data, shape }) {
  const width = data.length / shape[0];
  return Array.from({ length: shape[0] }, (_, i) => data.subarray(i * width, (i + 1) * width));
}

function judge(judged) {
  const { output, limits, figures } = judged;
  if (output.task === "segmentation") return judgeMaps(judged);
  if (output.task === "regression") return judgeRegression(judged);
  if (output.task === "boxes") return judgeBoxes(judged);
  if (DECIDED.includes(output.task)) return judgeDecisions(judged);
  if (output.task !== "multiclass" && output.task !== "embedding") {
    return { faults: [], ending: [NOT_VERIFIED, `there is no measure by which the task '${output.task}' is judged`] };
  }
  const found = output.task === "embedding" ? judgeEmbedding(judged) : judgeClasses(judged);
  return { faults: [...judgeDifference(figures, limits), ...found.faults], ending: found.ending };
}

function refusalOf(expected, answer, output, limits) {
  const count = expected.shape[0] ?? 0;
  if (count === 0) return ending(NOT_VERIFIED, "there are no images to compare on: nothing was compared");
  if (String(expected.shape) !== String(answer.shape)) {
    return ending(FAILED, `the answer has the shape ${answer.shape}, the Keras model's has ${expected.shape}`);
  }
  if (String(expected.shape.slice(1)) !== String(output.shape)) {
    return ending(FAILED, `the Keras model's answer has the shape ${expected.shape}, the card's ${output.shape}`);
  }
  const finite = (row) => row.every(Number.isFinite);
  if (!finite(expected.data)) return ending(DEGENERATE, "the Keras model itself answers with NaN or infinity");
  const bad = rowsOf(answer).filter((row) => !finite(row)).length;
  if (bad > 0) return ending(FAILED, `the answer holds NaN or infinity for ${bad} of ${count} images`);
  if (count === 1) return ending(DEGENERATE, "one image cannot tell a right artifact from a constant one");
  const rows = rowsOf(expected);
  if (output.task === "regression") {
    const still = "the Keras model's answers hardly vary over all images: a constant would agree";
    return nothingVaries(rows) ? ending(DEGENERATE, still) : null;
  }
  const varied = variation(rows);
  if (varied >= Math.max(LEAST_VARIATION, 2 * allowedBy(limits, output.task))) return null;
  const words = `the Keras model's answers vary by ${brief(varied)} over all images: a constant would agree`;
  return ending(DEGENERATE, words);
}

/** The difference that says nothing about an answer of a task. */
function allowedBy(limits, task) {
  // An embedding has many small numbers; what tells it from a constant is judged by its neighbours.
  if (task === "embedding") return 0;
  if (task === "boxes") return Math.min(limits.max_abs || limits.relative_error, limits.relative_error);
  return limits.max_abs ?? 0;
}

function judgeClasses(judged) {
  const { expected, answer, output, limits, truth, figures, sampled, refusesTies } = judged;
  noteSureness(expected, answer, output, limits, figures);
  const ties = expected.map((row) => isNearTie(row, limits.max_abs));
  const faults = judgeAgreement(judged, ties);
  const share = mean(ties.map(Number));
  const firsts = new Set(expected.map(argmax));
  let found = FINE;
  if (share > LARGEST_SHARE_OF_NEAR_TIES && refusesTies) {
    found = [DEGENERATE, `${percent(share)} of the images are near-ties of the Keras model itself`];
  } else if (firsts.size === 1 && !(sampled && limits.max_abs !== null)) {
    found = [DEGENERATE, "the Keras model gives every image the same label: a constant would agree"];
  }
  if (truth === null) return { faults, ending: endingByTruth(null, limits, found, "") };
  const right = [expected, answer].map((rows) => rows.map((row, i) => Number(argmax(row) === truth[i][0])));
  const fall = judgeFall(...right, limits, figures);
  return { faults: [...faults, ...fall.faults], ending: endingByTruth(truth, limits, found, fall.tooFew) };
}

function noteSureness(expected, answer, output, limits, figures) {
  figures.confidence_shift = mean(answer.map(largest)) - mean(expected.map(largest));
  const passing = figures.smallest_passing_limits;
  if (limits.confidence_shift !== null) passing.confidence_shift = Math.abs(figures.confidence_shift);
  // What float32 or float16 leaves of any other activation's answers does not tell its inputs.
  if (output.activation !== "softmax" || limits.log_max_abs === null) return;
  figures.log_max_abs = passing.log_max_abs = logMaxAbs(expected, answer);
}
