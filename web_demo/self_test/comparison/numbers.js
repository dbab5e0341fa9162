/** Judges regressions, each column by its own spread, and boxes, as `exporters/gates_numbers.py` does. */

import {
  DEGENERATE, FINE, LARGEST_SHARE_OF_NEAR_TIES, MOST_TOLD, NOT_VERIFIED, endingByTruth, judgeDifference, judgeFall,
  judgeShare, percent,
} from "./gates.js";
import { boxIou, hasArea, largest, mean, quantile } from "./measures.js";

/** A column hardly varies whose values lie nearer together than this share of the largest of them. */
const LEAST_SPREAD = 1e-3;

const columnOf = (rows, k) => Float64Array.from(rows, (row) => row[k]);
const size = (values) => largest(values.map(Math.abs));

/** How far the values of a column lie apart, from the 2.5th to the 97.5th percentile; 0 where it hardly varies. */
export function spread(values) {
  const apart = quantile(values, 0.975) - quantile(values, 0.025);
  return apart > LEAST_SPREAD * size(values) ? apart : 0;
}

/** Whether no column varies enough to tell an artifact from a constant. */
export const nothingVaries = (rows) => !Array.from(rows[0], (_, k) => spread(columnOf(rows, k))).some(Boolean);

/** The error that `relative_error` limits, and the largest one. */
function errorsOf(gaps, limits) {
  const most = largest(gaps);
  return [limits.worst_relative_error === null ? most : Math.sqrt(mean(gaps.map((each) => each * each))), most];
}

/** The figures that are limited, what they are called, and their limits. */
function limited(limits) {
  if (limits.worst_relative_error === null) return [["relative_error", "the largest error", limits.relative_error]];
  return [
    ["relative_error", "the error (root of the mean of squares)", limits.relative_error],
    ["worst_relative_error", "the largest error", limits.worst_relative_error],
  ];
}

function note(figures, relative, most, limits) {
  Object.assign(figures, { relative_error: relative, worst_relative_error: most });
  figures.smallest_passing_limits.relative_error = relative;
  if (limits.worst_relative_error !== null) figures.smallest_passing_limits.worst_relative_error = most;
}

function columnFigures(expected, answer, truth, limits) {
  const apart = spread(expected);
  // Keras may answer less far apart than the truth is, and then a small error looks large.
  const unit = apart ? Math.max(apart, truth ? spread(truth) : 0) : size(expected) || 1;
  const [error, most] = errorsOf(expected.map((each, i) => Math.abs(each - answer[i])), limits);
  return { relative_error: error / unit, worst_relative_error: most / unit, max_abs: most, spread: apart ? unit : 0 };
}

/**
 * @param {import("./gates.js").Judged} judged
 * @returns {import("./gates.js").Judgement}
 */
export function judgeRegression({ expected, answer, output, limits, truth, figures }) {
  const count = expected[0].length;
  const found = Array.from({ length: count }, (_, k) => ({
    name: output.columns?.length === count ? output.columns[k] : String(k),
    ...columnFigures(columnOf(expected, k), columnOf(answer, k), truth && columnOf(truth, k), limits),
  }));
  const most = (key) => largest(found.map((each) => each[key]));
  note(figures, most("relative_error"), most("worst_relative_error"), limits);
  if (count > 1) figures.columns = found;
  const faults = limited(limits).flatMap(([key, words, limit]) => found
    .slice().sort((a, b) => b[key] - a[key]).slice(0, MOST_TOLD).filter((each) => each[key] > limit)
    .map((each) => {
      const of = count > 1 ? ` of '${each.name}'` : "";
      const what = each.spread ? "spread" : "largest value";
      return `${words}${of} is ${percent(each[key], 2)} of the ${what}, over ${percent(limit, 2)}`;
    }));
  const still = found.filter((each) => !each.spread).map(({ name }) => name);
  if (still.length === 0) return { faults, ending: FINE };
  const which = count > 1 ? ` in the column${still.length > 1 ? "s" : ""} ${still.join(", ")}` : "";
  return { faults, ending: [DEGENERATE, `the Keras model's answers hardly vary${which}: a constant would agree`] };
}

/**
 * Judge boxes, x_min, y_min, x_max, y_max in shares of the picture, by what they have in common.
 *
 * @param {import("./gates.js").Judged} judged
 * @returns {import("./gates.js").Judgement}
 */
export function judgeBoxes({ expected, answer, limits, truth, figures, sampled }) {
  const gaps = expected.flatMap((row, i) => Array.from(row, (each, k) => Math.abs(each - answer[i][k])));
  note(figures, ...errorsOf(gaps, limits), limits);
  const faults = judgeDifference(figures, limits);
  for (const [key, words, limit] of limited(limits)) {
    if (!(figures[key] > limit)) continue;
    faults.push(`${words} of a side of a box is ${percent(figures[key], 2)} of the picture, over ${percent(limit, 2)}`);
  }
  const valid = expected.map((row, i) => i).filter((i) => hasArea(expected[i]));
  const without = expected.length - valid.length;
  let ending = FINE;
  if (without > 0) figures.boxes_without_area = without;
  if (without > LARGEST_SHARE_OF_NEAR_TIES * expected.length) {
    ending = [DEGENERATE, `${without} of ${expected.length} boxes of the Keras model itself have no area`];
  }
  if (valid.length > 0) {
    const shares = valid.map((i) => boxIou(expected[i], answer[i]));
    figures.least_iou = Math.min(...shares);
    const found = judgeShare(shares, mean(shares), limits.iou ?? 0, figures, "iou", sampled);
    if (found) faults.push(`the mean IoU with the Keras model's boxes, ${found}`);
  }
  if (limits.iou === null) ending = [NOT_VERIFIED, "these limits hold no IoU by which boxes are judged"];
  let tooFew = "";
  if (truth !== null) {
    const overlaps = [expected, answer].map((rows) => rows.map((row, i) => boxIou(truth[i], row)));
    figures.truth_iou_of_keras = mean(overlaps[0]);
    const judged = judgeFall(...overlaps, limits, figures, { key: "truth_iou", words: "mean IoU with the true boxes" });
    faults.push(...judged.faults);
    tooFew = judged.tooFew;
  }
  return { faults, ending: endingByTruth(truth, limits, ending, tooFew) };
}
