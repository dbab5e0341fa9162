/**
 * The figures of a comparison, as `exporters/measures.py` and `exporters/overlaps.py` have them in Python. No limit and
 * no status is known here.
 *
 * @typedef {ArrayLike<number> & Iterable<number>} Row  the answer to one picture, flat
 */

const CHANCE = 0.01;
const PROBABILITY_FLOOR = 1e-7;
const INTERVAL = 1.959964;
/** The 99th percentile of the normal distribution: what is farther off by chance has a probability under CHANCE. */
const ONE_SIDED = 2.326348;

export function sum(values) {
  let total = 0;
  for (const each of values) total += each;
  return total;
}

export const mean = (values) => sum(values) / values.length;

export function largest(values) {
  let found = -Infinity;
  for (const each of values) if (each > found) found = each;
  return found;
}

/** The index of the largest value; of equal ones the first. */
export function argmax(values) {
  let found = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[found]) found = i;
  return found;
}

/** The number under which a share of all values lies, between two of them by proportion. */
export function quantile(values, share) {
  const ordered = Float64Array.from(values).sort();
  const place = (ordered.length - 1) * share;
  const below = Math.floor(place);
  const above = Math.min(below + 1, ordered.length - 1);
  return ordered[below] + (ordered[above] - ordered[below]) * (place - below);
}

/**
 * @param {Row[]} expected
 * @param {Row[]} answer
 * @returns {{max_abs: number, mean_abs: number, cosine: number}}  over all numbers of all pictures; the cosine is 0
 *   where one of the two is all zeros
 */
export function differences(expected, answer) {
  let [most, total, count, ours, theirs, both] = [0, 0, 0, 0, 0, 0];
  for (const [i, row] of expected.entries()) {
    for (let k = 0; k < row.length; k++) {
      const [one, other] = [row[k], answer[i][k]];
      const gap = Math.abs(one - other);
      if (gap > most) most = gap;
      total += gap;
      ours += one * one;
      theirs += other * other;
      both += one * other;
    }
    count += row.length;
  }
  const norms = Math.sqrt(ours) * Math.sqrt(theirs);
  return { max_abs: most, mean_abs: total / count, cosine: norms ? both / norms : 0 };
}

/** By how much the number that varies most varies over all pictures. */
export function variation(rows) {
  let most = 0;
  for (let k = 0; k < rows[0].length; k++) {
    let [low, high] = [Infinity, -Infinity];
    for (const row of rows) {
      if (row[k] < low) low = row[k];
      if (row[k] > high) high = row[k];
    }
    if (high - low > most) most = high - low;
  }
  return most;
}

/** The largest difference of log-probabilities, each picture's mean over the classes removed. */
export function logMaxAbs(expected, answer) {
  const centred = (row) => {
    const logs = Array.from(row, (each) => Math.log(Math.max(each, PROBABILITY_FLOOR)));
    const middle = mean(logs);
    return logs.map((each) => each - middle);
  };
  return largest(expected.map((row, i) => {
    const [one, other] = [centred(row), centred(answer[i])];
    return largest(one.map((each, k) => Math.abs(each - other[k])));
  }));
}

/** Whether the two largest of some numbers are nearer to each other than twice a limit; never without a limit. */
export function isNearTie(row, limit) {
  if (limit === null || row.length < 2) return false;
  let [first, second] = [-Infinity, -Infinity];
  for (let k = 0; k < row.length; k++) {
    if (row[k] > first) [first, second] = [row[k], first];
    else if (row[k] > second) second = row[k];
  }
  return first - second < 2 * limit;
}

/**
 * The fall of a mean from Keras to the artifact, with its paired 95 % interval (Agresti and Min 2005).
 *
 * @param {number[]} right  0..1 of each picture, of Keras
 * @param {number[]} rightOfArtifact
 * @returns {[number, number, number]} drop, low, high
 */
export function pairedDrop(right, rightOfArtifact) {
  const falls = right.map((each, i) => each - rightOfArtifact[i]);
  const count = falls.length + 2;
  const fall = sum(falls);
  const squares = sum(falls.map((each) => each * each)) + 1;
  const half = (INTERVAL * Math.sqrt(Math.max(squares - (fall * fall) / count, 0))) / count;
  const center = fall / count;
  return [mean(right) - mean(rightOfArtifact), center - half, center + half];
}

/** What the mean of all pictures may be, of which these are a sample: the upper end of a one-sided 99 % interval. */
export function atMost(shares) {
  if (shares.length < 2) return 1;
  const middle = mean(shares);
  const deviation = Math.sqrt(sum(shares.map((each) => (each - middle) ** 2)) / (shares.length - 1));
  return Math.min(middle + (ONE_SIDED * deviation) / Math.sqrt(shares.length), 1);
}

/**
 * How many pictures of a sample may disagree before it is no longer chance: one-sided exact binomial test at 1 %.
 *
 * @param {number} count  of pictures
 * @param {number} leastAgreement  the share 0..1 that has to agree over all pictures; 1 allows no disagreement
 */
export function allowedDisagreements(count, leastAgreement) {
  const share = 1 - leastAgreement;
  if (share <= 0 || count === 0) return 0;
  if (share >= 1) return count;
  const logs = [0];
  for (let i = 1; i <= count; i++) logs.push(logs[i - 1] + Math.log(i));
  let tail = 0;
  for (let i = count; i > 0; i--) {
    const ways = logs[count] - logs[i] - logs[count - i];
    tail += Math.exp(ways + i * Math.log(share) + (count - i) * Math.log(1 - share));
    if (tail >= CHANCE) return i;
  }
  return 0;
}

const dot = (one, other) => {
  let total = 0;
  for (let k = 0; k < one.length; k++) total += one[k] * other[k];
  return total;
};

export const norm = (row) => Math.sqrt(dot(row, row));

/** The least cosine over the pictures of the angle between their two vectors; 0 where one is all zeros. */
export function leastCosine(expected, answer) {
  const cosines = expected.map((row, i) => {
    const norms = norm(row) * norm(answer[i]);
    return norms > 0 ? dot(row, answer[i]) / norms : 0;
  });
  return cosines.reduce((least, each) => Math.min(least, each), Infinity);
}

/** The cosine of every two vectors, one row for each; that of a vector with itself counts as -Infinity. */
export function similarities(vectors) {
  const directions = vectors.map((row) => {
    const length = norm(row);
    return Float64Array.from(row, (each) => (length > 0 ? each / length : each));
  });
  return directions.map((one, i) => directions.map((other, k) => (i === k ? -Infinity : dot(one, other))));
}

/** By the expected vectors alone, how much less like each picture the neighbour is that the answers choose for it. */
export function lostSimilarity(expected, answer) {
  const chosen = similarities(answer).map(argmax);
  return similarities(expected).map((row, i) => largest(row) - row[chosen[i]]);
}

const hasSides = (/** @type {any} */ [left, top, right, bottom]) => right > left && bottom > top;
const areaOf = ([left, top, right, bottom]) => (right - left) * (bottom - top);

/** Whether a box, x_min, y_min, x_max, y_max, has an area. */
export const hasArea = hasSides;

/** The intersection over union of two boxes, 0..1; a box without area has nothing in common with any. */
export function boxIou(one, other) {
  if (!hasSides(one) || !hasSides(other)) return 0;
  const across = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const down = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  const common = Math.max(across, 0) * Math.max(down, 0);
  return common / (areaOf(one) + areaOf(other) - common);
}

/**
 * The intersection over union of every class, NaN for one that neither label map has.
 *
 * @param {ArrayLike<number>} counts  classes x classes, pixels by their class in one map and in the other
 * @param {number} classes
 * @returns {number[]}
 */
export function classIou(counts, classes) {
  return Array.from({ length: classes }, (_, c) => {
    let union = -counts[c * classes + c];
    for (let k = 0; k < classes; k++) union += counts[c * classes + k] + counts[k * classes + c];
    return union > 0 ? counts[c * classes + c] / union : NaN;
  });
}

/** The mean of `classIou` over the classes that either map has; NaN where there is none. */
export const meanIou = (counts, classes) => mean(classIou(counts, classes).filter((each) => !Number.isNaN(each)));
