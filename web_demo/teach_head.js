/**
 * The head that the page teaches: averaged features, standardised, one dense layer, softmax.
 *
 * Plain arithmetic on typed arrays and not TF.js: so the same pictures make the same head on every backend (wasm and cpu
 * compute otherwise than webgl, which may round to 16 bits), no tensor can be left behind, and a head of a few thousand
 * weights is trained before a backend has compiled its kernels.
 *
 * @typedef {{kernel: Float32Array, bias: Float32Array, width: number, classes: number}} Head  `kernel` width x classes, with
 *   the standardisation in it: it takes features as they are
 * @typedef {{index: number, heldOut: boolean}} Placed  an index into the pictures, and the side that it is on
 */

export const SEED = 0;
export const LEAST_CLASSES = 2;
export const LEAST_PICTURES = 4;
const HELD_OUT = 0.2;
const EPOCHS = 300;
const LEARNING_RATE = 0.02;
const WEIGHT_DECAY = 0.01;
/** A feature that hardly varies would be blown up: this share of the mean variance is added to each. */
const LEAST_VARIANCE = 0.01;
/** How long to compute before the page may do something else, ms. */
const SLICE_MS = 40;

/**
 * The mean over all places of a feature map, as Keras's GlobalAveragePooling2D gives it.
 *
 * @param {{data: Float32Array, shape: number[]}} map  (1, height, width, channels)
 * @returns {Float32Array}  (channels)
 */
export function averaged({ data, shape }) {
  const channels = shape[shape.length - 1];
  const sums = new Float64Array(channels);
  for (let i = 0; i < data.length; i++) sums[i % channels] += data[i];
  return Float32Array.from(sums, (sum) => (sum * channels) / data.length);
}

/** Numbers in 0..1 from a seed: mulberry32, Tommy Ettinger's generator, which is in the public domain. */
export function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Choose which pictures are held out: a fifth of each class, at least one.
 *
 * @param {number[]} labels  class index of each picture
 * @param {number} seed
 * @returns {boolean[]}  whether each is held out
 */
export function heldOutOf(labels, seed) {
  const random = generator(seed);
  const heldOut = labels.map(() => false);
  for (const label of new Set(labels)) {
    const mine = [...labels.keys()].filter((i) => labels[i] === label);
    const count = Math.max(1, Math.round(mine.length * HELD_OUT));
    for (let k = 0; k < count; k++) {
      const j = k + Math.floor(random() * (mine.length - k));
      [mine[k], mine[j]] = [mine[j], mine[k]];
      heldOut[mine[k]] = true;
    }
  }
  return heldOut;
}

/** Mean and deviation of each feature. */
function standards(rows, width) {
  const [mean, variance] = [new Float64Array(width), new Float64Array(width)];
  for (const row of rows) for (let d = 0; d < width; d++) mean[d] += row[d] / rows.length;
  for (const row of rows) for (let d = 0; d < width; d++) variance[d] += (row[d] - mean[d]) ** 2 / rows.length;
  const usual = variance.reduce((sum, each) => sum + each / width, 0);
  // Where all pictures have the same features, nothing can be told apart, and nothing may be divided by 0.
  return { mean, deviation: variance.map((each) => Math.sqrt(each + LEAST_VARIANCE * usual) || 1) };
}

/** Turn logits into probabilities, in place. */
function softmax(values) {
  const largest = Math.max(...values);
  let sum = 0;
  for (let c = 0; c < values.length; c++) sum += values[c] = Math.exp(values[c] - largest);
  for (let c = 0; c < values.length; c++) values[c] /= sum;
  return values;
}

/** The gradient of the mean cross-entropy, every class weighing the same, and of the weight decay. */
function gradientOf(weights, bias, rows, labels, shares, width, classes) {
  const gradient = { weights: new Float64Array(weights.length), bias: new Float64Array(classes) };
  const logits = new Float64Array(classes);
  for (const [i, row] of rows.entries()) {
    logits.set(bias);
    for (let d = 0, at = 0; d < width; d++) for (let c = 0; c < classes; c++, at++) logits[c] += row[d] * weights[at];
    softmax(logits);
    logits[labels[i]] -= 1;
    for (let c = 0; c < classes; c++) gradient.bias[c] += logits[c] *= shares[i];
    for (let d = 0, at = 0; d < width; d++) for (let c = 0; c < classes; c++, at++) gradient.weights[at] += row[d] * logits[c];
  }
  for (let at = 0; at < weights.length; at++) gradient.weights[at] += WEIGHT_DECAY * weights[at];
  return gradient;
}

/** Adam (Kingma and Ba 2015, arXiv:1412.6980) for one array; gives the function that takes a step. */
function adam(values) {
  const [first, second] = [new Float64Array(values.length), new Float64Array(values.length)];
  return (gradient, step, rate) => {
    const [corrected1, corrected2] = [1 - 0.9 ** step, 1 - 0.999 ** step];
    for (let i = 0; i < values.length; i++) {
      first[i] = 0.9 * first[i] + 0.1 * gradient[i];
      second[i] = 0.999 * second[i] + 0.001 * gradient[i] ** 2;
      values[i] -= (rate * (first[i] / corrected1)) / (Math.sqrt(second[i] / corrected2) + 1e-8);
    }
  };
}

/**
 * Train a head. The loss is convex and all pictures are taken at once, so that it depends on no order and no chance.
 *
 * @param {Float32Array[]} features  of the pictures to learn from, all of one length
 * @param {number[]} labels  class index of each
 * @param {number} classes  at least 2
 * @param {(share: number) => void} [progress]  called now and then with 0..1
 * @returns {Promise<Head>}
 */
export async function trainHead(features, labels, classes, progress = () => {}) {
  const width = features[0].length;
  const { mean, deviation } = standards(features, width);
  const rows = features.map((row) => Float64Array.from(row, (value, d) => (value - mean[d]) / deviation[d]));
  const counts = Array.from({ length: classes }, (_, c) => labels.filter((label) => label === c).length);
  const present = counts.filter((count) => count > 0).length;
  const shares = labels.map((label) => 1 / (present * counts[label]));
  const [weights, bias] = [new Float64Array(width * classes), new Float64Array(classes)];
  const [moveWeights, moveBias] = [adam(weights), adam(bias)];
  let paused = performance.now();
  for (let step = 1; step <= EPOCHS; step++) {
    const rate = LEARNING_RATE * (1 - (step - 1) / EPOCHS);
    const gradient = gradientOf(weights, bias, rows, labels, shares, width, classes);
    moveWeights(gradient.weights, step, rate);
    moveBias(gradient.bias, step, rate);
    if (performance.now() - paused < SLICE_MS) continue;
    progress(step / EPOCHS);
    await new Promise((resolve) => setTimeout(resolve));
    paused = performance.now();
  }
  return folded(weights, bias, mean, deviation, classes);
}

/** Put the standardisation into the dense layer, which then takes features as they are. */
function folded(weights, bias, mean, deviation, classes) {
  const width = mean.length;
  const kernel = Float32Array.from(weights, (value, at) => value / deviation[Math.floor(at / classes)]);
  const moved = Float64Array.from(bias);
  // From the rounded kernel: what rounding moved is not moved twice.
  for (let at = 0; at < kernel.length; at++) moved[at % classes] -= mean[Math.floor(at / classes)] * kernel[at];
  return { kernel, bias: Float32Array.from(moved), width, classes };
}

/**
 * What a head answers.
 *
 * @param {Head} head
 * @param {Float32Array} features  of one picture
 * @returns {Float32Array}  the probability of each class
 */
export function probabilitiesOf({ kernel, bias, width, classes }, features) {
  const logits = Float64Array.from(bias);
  for (let d = 0, at = 0; d < width; d++) for (let c = 0; c < classes; c++, at++) logits[c] += features[d] * kernel[at];
  return Float32Array.from(softmax(logits));
}
