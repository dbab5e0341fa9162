/**
 * What one answer says to people, as `exporters/explanation.py` says it in Python: labels and probabilities, numbers by
 * their names, boxes and areas of the picture.
 *
 * @typedef {import("./predict.js").Output} Output
 * @typedef {{width: number, height: number, resize: import("./pixels.js").Resize}} Seen  the picture's size in px before
 *   it was resized, and how it was
 * @typedef {{label: string, probability: number}} Likely
 */

import { shownWindow } from "./pixels.js";

/** A probability over it is a yes. */
export const DECIDES = 0.5;
const SIDES = ["x_min", "y_min", "x_max", "y_max"];

/**
 * The likeliest labels, likeliest first; equal ones in index order.
 *
 * @param {ArrayLike<number>} probabilities  of one image
 * @param {string[]} labels  in index order
 * @param {number} k  how many at most
 * @returns {{label: string, probability: number, index: number}[]}
 */
export function topLabels(probabilities, labels, k) {
  const named = (probability, index) => ({ label: labels[index] ?? String(index), probability, index });
  return Array.from(probabilities, named)
    .sort((a, b) => b.probability - a.probability || a.index - b.index)
    .slice(0, k);
}

const likeliest = (probabilities, labels, k) =>
  topLabels(probabilities, labels, k).map(({ label, probability }) => ({ label, probability }));

/**
 * The probability of each rank, from the probabilities that it is above the first, the second ... one; they add up to 1.
 *
 * @param {number[]} above  in 0..1, falling; where they are not, no rank is less likely than impossible
 */
export function classProbabilities(above) {
  const edges = [1, ...above, 0];
  const differences = edges.slice(1).map((edge, i) => Math.max(edges[i] - edge, 0));
  const sum = differences.reduce((total, each) => total + each, 0);
  return differences.map((each) => each / sum);
}

/**
 * The likeliest class of each pixel of a segmentation, row by row.
 *
 * @param {ArrayLike<number>} data  height x width x classes
 * @param {number} classes
 * @returns {Uint8Array}
 */
export function classesOf(data, classes) {
  const found = new Uint8Array(data.length / classes);
  for (let pixel = 0; pixel < found.length; pixel++) {
    const start = pixel * classes;
    for (let c = 1; c < classes; c++) if (data[start + c] > data[start + found[pixel]]) found[pixel] = c;
  }
  return found;
}

function boxOf(shares, { width, height, resize }) {
  const [left, top, right, bottom] = shownWindow(width, height, resize);
  const sizes = [width, height, width, height];
  const starts = [left, top, left, top];
  const extents = [right - left, bottom - top, right - left, bottom - top];
  const px = shares.map((share, i) => Math.min(Math.max(starts[i] + share * extents[i], 0), sizes[i]));
  const named = (values) => Object.fromEntries(SIDES.map((side, i) => [side, values[i]]));
  return { box: named(px.map((value, i) => value / sizes[i])), box_px: named(px) };
}

function areasOf(data, { shape, labels }, { width, height, resize }) {
  const [rows, columns, count] = shape;
  const [left, top, right, bottom] = shownWindow(width, height, resize);
  const classes = classesOf(data, count);
  const counted = new Array(count).fill(0);
  let total = 0;
  for (let row = 0; row < rows; row++) {
    const y = top + ((row + 0.5) / rows) * (bottom - top);
    for (let column = 0; column < columns; column++) {
      const x = left + ((column + 0.5) / columns) * (right - left);
      // What is filled up with black is no part of the picture.
      if (x < 0 || x >= width || y < 0 || y >= height) continue;
      counted[classes[row * columns + column]] += 1;
      total += 1;
    }
  }
  return topLabels(counted, labels, count)
    .filter(({ probability }) => probability > 0)
    .map(({ label, probability }) => ({ label, share: probability / Math.max(1, total) }));
}

function columnsOf({ name, columns }, count) {
  if (columns?.length === count) return columns;
  return count === 1 ? [name] : Array.from({ length: count }, (_, i) => String(i));
}

/**
 * Say what one output's answer to one picture means.
 *
 * @param {Float32Array} data  the answer to one picture
 * @param {Output} output  of the card
 * @param {Seen} seen  the picture
 * @param {number} top  how many labels to give
 * @returns {object} by the task. multiclass, binary: `{top: Likely[]}`; multilabel: `{labels: Likely[], top: Likely[]}`,
 *   `labels` being those over 0.5; ordinal: `{label, rank, top: Likely[]}`, the rank counting from 0; regression:
 *   `{values: Record<string, number>, unit}`; embedding: `{vector: number[]}`; boxes: `{box, box_px}`, each
 *   `{x_min, y_min, x_max, y_max}`, in shares 0..1 and in px of the picture before it was resized; segmentation:
 *   `{areas: {label, share}[]}`, largest first, in shares of what the model saw of the picture
 */
export function explain(data, output, seen, top) {
  const numbers = Array.from(data);
  const { labels, task, unit } = output;
  if (task === "boxes") return boxOf(numbers, seen);
  if (task === "segmentation") return { areas: areasOf(numbers, output, seen) };
  if (task === "embedding") return { vector: numbers };
  if (task === "binary") return { top: likeliest([1 - numbers[0], numbers[0]], labels, top) };
  if (task === "multilabel") {
    const found = likeliest(numbers, labels, numbers.length);
    return { labels: found.filter(({ probability }) => probability > DECIDES), top: found.slice(0, top) };
  }
  if (task === "ordinal") {
    const rank = numbers.filter((each) => each > DECIDES).length;
    return { label: labels[rank] ?? String(rank), rank, top: likeliest(classProbabilities(numbers), labels, top) };
  }
  if (labels.length > 0) return { top: likeliest(numbers, labels, top) };
  const names = columnsOf(output, numbers.length);
  return { values: Object.fromEntries(numbers.map((value, i) => [names[i], value])), unit };
}
