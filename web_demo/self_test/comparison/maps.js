/** Judges label maps, picture by picture, as `exporters/gates_segmentation.py` does: the class of each pixel. */

import {
  DEGENERATE, FINE, MOST_TOLD, NOT_VERIFIED, SLACK_OF_A_LABEL, endingByTruth, judgeDifference, judgeFall, judgeShare,
  percent,
} from "./gates.js";
import { allowedDisagreements, argmax, classIou, isNearTie, mean, meanIou, sum } from "./measures.js";

const UNKNOWN_PIXEL = 255;
/** Edges between regions run through every picture, and pixels on them are near-ties. */
const LARGEST_SHARE_OF_NEAR_TIE_PIXELS = 0.25;
/** A smaller region, in shares of the picture, may come and go by rounding. */
const LEAST_REGION = 0.005;

/**
 * @param {import("./gates.js").Judged} judged
 * @returns {import("./gates.js").Judgement}
 */
export function judgeMaps({ expected, answer, output, limits, truth, figures, sampled, refusesTies }) {
  const classes = output.shape.at(-1);
  const pictures = expected.map((row, i) => pictureOf(row, answer[i], truth?.[i] ?? null, classes, limits));
  figures.confidence_shift = mean(pictures.map(({ surer }) => surer));
  if (limits.confidence_shift !== null) {
    figures.smallest_passing_limits.confidence_shift = Math.abs(figures.confidence_shift);
  }
  const faults = judgeDifference(figures, limits);
  const regions = judgeRegions(pictures, output, limits, figures, sampled);
  faults.push(...regions.faults);
  let { ending } = regions;
  const share = sum(pictures.map(({ ties }) => ties)) / (pictures.length * (expected[0].length / classes));
  if (limits.iou === null) {
    ending = [NOT_VERIFIED, "these limits hold no IoU by which label maps are judged"];
  } else if (share > LARGEST_SHARE_OF_NEAR_TIE_PIXELS && refusesTies) {
    ending = [DEGENERATE, `${percent(share)} of the pixels are near-ties of the Keras model itself`];
  } else if (pictures.every(({ theirs }) => theirs.every((each, k) => each === pictures[0].theirs[k]))
    && !(sampled && limits.max_abs !== null)) {
    ending = [DEGENERATE, "the Keras model gives every image the same label map: a constant would agree"];
  }
  const known = pictures.filter(({ right }) => right !== null);
  if (known.length === 0) return { faults, ending: endingByTruth(null, limits, ending, "") };
  const judged = judgeTruth(known, limits, figures);
  return { faults: [...faults, ...judged.faults], ending: endingByTruth(truth, limits, ending, judged.tooFew) };
}

/** What one picture's maps give: near-ties, counts of the other pixels by both classes, and shares that are right. */
function pictureOf(expected, answer, truth, classes, limits) {
  const pixels = expected.length / classes;
  const [theirs, mine] = [new Uint16Array(pixels), new Uint16Array(pixels)];
  const counts = new Float64Array(classes * classes);
  let [ties, surer] = [0, 0];
  for (let p = 0; p < pixels; p++) {
    const [one, other] = [expected, answer].map((row) => row.subarray(p * classes, (p + 1) * classes));
    theirs[p] = argmax(one);
    mine[p] = argmax(other);
    surer += other[mine[p]] - one[theirs[p]];
    if (isNearTie(one, limits.max_abs)) ties += 1;
    else counts[theirs[p] * classes + mine[p]] += 1;
  }
  const found = { theirs, ties, counts, surer: surer / pixels, right: null, iou: null };
  if (truth === null || truth.every((each) => each === UNKNOWN_PIXEL)) return found;
  const against = [theirs, mine].map((said) => pairCounts(truth, said, classes));
  return {
    ...found,
    right: against.map((each) => trace(each, classes) / sum(each)),
    iou: against.map((each) => meanIou(each, classes)),
  };
}

/** Count known pixels by their true class (rows) and by the one that is said (columns). */
function pairCounts(truth, said, classes) {
  const counts = new Float64Array(classes * classes);
  for (let p = 0; p < truth.length; p++) if (truth[p] !== UNKNOWN_PIXEL) counts[truth[p] * classes + said[p]] += 1;
  return counts;
}

const trace = (counts, classes) => sum(Array.from({ length: classes }, (_, c) => counts[c * classes + c]));

function judgeRegions(pictures, output, limits, figures, sampled) {
  const classes = output.shape.at(-1);
  figures.near_ties = sum(pictures.map(({ ties }) => ties));
  const every = pictures.map(({ counts }) => counts).filter((counts) => counts.some((each) => each > 0));
  if (every.length === 0) {
    figures.agreement = 0;
    return { faults: [], ending: [DEGENERATE, "every pixel is a near-tie of the Keras model itself"] };
  }
  const all = new Float64Array(classes * classes).map((_, k) => sum(every.map((each) => each[k])));
  const faults = [];
  const shares = every.map((each) => trace(each, classes) / sum(each));
  const kept = judgeShare(shares, trace(all, classes) / sum(all), limits.agreement, figures, "agreement", sampled);
  if (kept) faults.push(`the share of pixels that keep their class, ${kept}`);
  const names = output.labels.length === classes ? output.labels : Array.from({ length: classes }, (_, c) => String(c));
  const overlap = classIou(all, classes).map((each, c) => [names[c], each]).filter(([, each]) => !Number.isNaN(each));
  figures.iou_of_classes = Object.fromEntries(overlap);
  const overlaps = withoutEach(every, all, classes);
  const found = judgeShare(overlaps, meanIou(all, classes), limits.iou ?? 0, figures, "iou", sampled);
  if (found) {
    const [least] = overlap.reduce((a, b) => (b[1] < a[1] ? b : a));
    faults.push(`the mean IoU of the classes' regions, ${found}; the least is '${least}'`);
  }
  return { faults: [...faults, ...lost(every, names, limits)], ending: FINE };
}

/** The jackknife's pseudo-values of the mean IoU, one of each picture (Quenouille 1956). */
function withoutEach(every, all, classes) {
  const whole = meanIou(all, classes);
  return every.map((each) => {
    const left = meanIou(all.map((count, k) => count - each[k]), classes);
    return every.length * whole - (every.length - 1) * (Number.isNaN(left) ? whole : left);
  });
}

/** Classes that lose most of their region, in the pictures of which Keras gives them half a percent or more. */
function lost(every, names, limits) {
  const least = 1 - SLACK_OF_A_LABEL * (1 - limits.agreement);
  const classes = names.length;
  const told = [];
  for (let c = 0; c < classes; c++) {
    let [asked, gone] = [0, 0];
    for (const counts of every) {
      const region = sum(counts.subarray(c * classes, (c + 1) * classes));
      if (region === 0 || region < LEAST_REGION * sum(counts)) continue;
      asked += 1;
      if (counts[c * classes + c] < region / 2) gone += 1;
    }
    if (gone > allowedDisagreements(asked, least)) {
      told.push(`'${names[c]}': ${gone} of ${asked} images lose most of its region`);
    }
  }
  return told.slice(0, MOST_TOLD);
}

function judgeTruth(known, limits, figures) {
  const of = (key, side) => known.map((each) => each[key][side]);
  figures.truth_iou_of_keras = mean(of("iou", 0));
  const right = judgeFall(of("right", 0), of("right", 1), limits, figures, { words: "the share of right pixels" });
  const words = "mean IoU with the true label maps";
  const overlap = judgeFall(of("iou", 0), of("iou", 1), limits, figures, { key: "truth_iou", words });
  return { faults: [...right.faults, ...overlap.faults], tooFew: right.tooFew || overlap.tooFew };
}
