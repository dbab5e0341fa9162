/**
 * The gates that several tasks share, as `exporters/gates.py` has them: each holds figures against limits and says in
 * words what is wrong. What was measured goes into `figures`, what would have passed into its
 * `smallest_passing_limits`.
 *
 * @typedef {{max_abs: number | null, agreement: number, accuracy_drop: number | null, relative_error: number,
 *   log_max_abs: number | null, confidence_shift: number | null, least_cosine: number | null,
 *   neighbours: number | null, iou: number | null, worst_relative_error: number | null}} Limits  null: not judged
 * @typedef {{expected: ArrayLike<number>[], answer: ArrayLike<number>[], output: import("../../predict.js").Output,
 *   limits: Limits, truth: ArrayLike<number>[] | null, figures: Record<string, any>, sampled: boolean,
 *   refusesTies: boolean}} Judged  one output: answers by picture; `truth` of each, where it is known; `sampled`: the
 *   pictures are a few of a set on which another runtime was judged
 * @typedef {{faults: string[], ending: string[]}} Judgement  what is wrong; status and reason where nothing is
 */

import { allowedDisagreements, argmax, atMost, mean, pairedDrop } from "./measures.js";

export const [VERIFIED, NOT_ENOUGH_IMAGES, DEGENERATE, NOT_VERIFIED, FAILED] =
  ["verified", "not_enough_images", "degenerate", "not_verified", "failed"];
export const FINE = [VERIFIED, ""];
export const LARGEST_SHARE_OF_NEAR_TIES = 0.05;
/** A label's own pictures may be lost four times as often as pictures are on average. */
export const SLACK_OF_A_LABEL = 4;
/** Of labels and columns of which the same is wrong, this many are named. */
export const MOST_TOLD = 3;
export const DECIDED = ["binary", "multilabel", "ordinal"];
const LARGEST_HALF_WIDTH = 0.02;
const SEVERITY = [VERIFIED, NOT_ENOUGH_IMAGES, DEGENERATE, NOT_VERIFIED, FAILED];

/** The worst of some statuses; `not_verified` where there is none. */
export function worst(statuses) {
  const ranks = statuses.map((each) => SEVERITY.indexOf(each));
  return ranks.length > 0 ? SEVERITY[Math.max(...ranks)] : NOT_VERIFIED;
}

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;
export const brief = (value) => String(Number(value.toPrecision(2)));

/** Judge how many pictures get the same first label, near-ties left out. */
export function judgeAgreement({ expected, answer, limits, figures, sampled }, ties) {
  const same = expected.map((row, i) => argmax(row) === argmax(answer[i])).filter((_, i) => !ties[i]);
  return judgeSame(same, ties, limits, figures, sampled, {
    told: "top-1 agreement", another: "label",
  });
}

/**
 * Judge a share of pictures that agree; of a sample, how many may disagree by chance.
 *
 * @param {boolean[]} same  of each picture that is no near-tie
 * @param {boolean[]} ties  of each picture
 */
export function judgeSame(same, ties, limits, figures, sampled, { told, another }) {
  const agreement = same.length > 0 ? same.filter(Boolean).length / same.length : 0;
  Object.assign(figures, { agreement, near_ties: ties.filter(Boolean).length });
  figures.smallest_passing_limits.agreement = agreement;
  if (!sampled) {
    const fails = agreement < limits.agreement && same.length > 0;
    return fails ? [`${told} ${percent(agreement)} is under ${percent(limits.agreement)}`] : [];
  }
  const wrong = same.filter((each) => !each).length;
  const allowed = allowedDisagreements(same.length, limits.agreement);
  Object.assign(figures, { disagreements: wrong, allowed_disagreements: allowed });
  if (wrong <= allowed) return [];
  const words = `${wrong} of ${same.length} sampled images get another ${another}`;
  return [`${words}; a limit of ${percent(limits.agreement)} allows ${allowed}`];
}

/**
 * Judge the fall of a mean over the pictures from Keras to the artifact, by its paired interval.
 *
 * @returns {{faults: string[], tooFew: string}}  what is wrong; why the pictures are too few to say that nothing is
 */
export function judgeFall(right, rightOfArtifact, limits, figures, { key = "accuracy", words = "accuracy" } = {}) {
  const [drop, low, high] = pairedDrop(right, rightOfArtifact);
  Object.assign(figures, { [key]: mean(rightOfArtifact), [`${key}_drop`]: drop, [`${key}_interval`]: [low, high] });
  const passing = figures.smallest_passing_limits;
  passing.accuracy_drop = Math.max(drop, passing.accuracy_drop ?? 0);
  if (limits.accuracy_drop === null) return { faults: [], tooFew: "" };
  if (drop > limits.accuracy_drop && low > 0) {
    const interval = `95 % interval ${percent(low)} to ${percent(high)}`;
    const fault = `${words} falls by ${percent(drop)} (${interval}), more than ${percent(limits.accuracy_drop)}`;
    return { faults: [fault], tooFew: "" };
  }
  const half = (high - low) / 2;
  if (half <= LARGEST_HALF_WIDTH) return { faults: [], tooFew: "" };
  const uncertain = `${right.length} images leave the fall of ${words} uncertain by ${percent(half)}`;
  const allowed = `at most ${percent(LARGEST_HALF_WIDTH, 0)} is allowed`;
  return { faults: [], tooFew: `${uncertain}; ${allowed}: give more test images or raise parity.images` };
}

/** How a comparison ends once the accuracy gate had its say: without truth it did not run. */
export function endingByTruth(truth, limits, ending, tooFew) {
  if (truth === null && limits.accuracy_drop !== null) {
    return [NOT_VERIFIED, "there are no labels: the accuracy gate did not run"];
  }
  return tooFew && ending === FINE ? [NOT_ENOUGH_IMAGES, tooFew] : ending;
}

/**
 * Judge the mean of a share of each picture by its least limit; of a sample by what all pictures may have.
 *
 * @returns {string} what is wrong, as in `93.1% is under 95.0%`; empty where nothing is
 */
export function judgeShare(shares, middle, limit, figures, key, sampled) {
  figures[key] = middle;
  figures.smallest_passing_limits[key] = middle;
  if (!sampled) return middle < limit ? `${percent(middle)} is under ${percent(limit)}` : "";
  const bound = limit >= 1 ? middle : Math.max(middle, atMost(shares));
  figures[`${key}_at_most`] = bound;
  if (!(bound < limit)) return "";
  return `${percent(middle)} of a sample, ${percent(bound)} of all images at most, is under ${percent(limit)}`;
}

/** Judge the largest differences that are in `figures` already. */
export function judgeDifference(figures, limits) {
  const faults = [];
  if (limits.max_abs !== null && figures.max_abs > limits.max_abs) {
    faults.push(`the largest difference ${brief(figures.max_abs)} is over ${brief(limits.max_abs)}`);
  }
  const shift = figures.confidence_shift;
  const decides = DECIDED.includes(figures.task);
  if (limits.confidence_shift !== null && shift !== undefined && Math.abs(shift) > limits.confidence_shift) {
    const what = decides ? "decisions are" : "the likeliest label is";
    const told = `${what} ${brief(shift)} surer on average, and ${brief(limits.confidence_shift)} is allowed`;
    faults.push(`${told}: rounding makes single answers surer or less sure, not all of them`);
  }
  if (limits.log_max_abs !== null && (figures.log_max_abs ?? 0) > limits.log_max_abs) {
    const found = `${brief(figures.log_max_abs)} is over ${brief(limits.log_max_abs)}`;
    const told = decides ? `log-odds ${found}, which a sigmoid` : `log-probabilities ${found}, which softmax`;
    faults.push(`the largest difference of ${told} hides where one label is sure`);
  }
  return faults;
}
