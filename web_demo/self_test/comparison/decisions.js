/** Judges answers of sigmoids, as `exporters/gates_decisions.py` does: each decides yes (over 0.5) or no. */

import {
  DEGENERATE, FINE, LARGEST_SHARE_OF_NEAR_TIES, MOST_TOLD, SLACK_OF_A_LABEL, endingByTruth, judgeDifference, judgeFall,
  judgeSame, judgeShare, percent,
} from "./gates.js";
import { allowedDisagreements, largest, mean } from "./measures.js";

const DECIDES = 0.5;
/** Two columns that trade places must be farther apart than the steps of 1/256 in which whole numbers answer. */
const LEAST_SWAP = 0.01;
const ALIKE = { ordinal: "same rank", multilabel: "same labels", binary: "same label" };

const rankOf = (row) => row.filter((each) => each > DECIDES).length;
const range = (count) => Array.from({ length: count }, (_, i) => i);

/** A name for every number of an answer: its label, that which a threshold is above, or its place. */
function namesOf({ task, labels, columns }, count) {
  const named = task === "ordinal" ? labels.slice(0, -1).map((label) => `above ${label}`) : labels;
  const names = columns?.length > 0 ? columns : named;
  return names.length === count ? names : range(count).map(String);
}

/**
 * @param {import("./gates.js").Judged} judged
 * @returns {import("./gates.js").Judgement}
 */
export function judgeDecisions(judged) {
  const { output, limits, truth, figures, sampled, refusesTies } = judged;
  const [expected, answer] = [judged.expected, judged.answer].map((rows) => rows.map((row) => Array.from(row)));
  noteSureness(expected, answer, output, limits, figures);
  const faults = judgeDifference(figures, limits);
  const ties = expected.map((row) => row.map((each) => Math.abs(each - DECIDES) < (limits.max_abs ?? 0)));
  const yes = expected.map((row) => row.map((each) => each > DECIDES));
  const kept = yes.map((row, i) => row.map((each, k) => each === answer[i][k] > DECIDES));
  const disagreement = agreementOf({ expected, answer, kept, ties, output, limits, figures, sampled });
  const names = namesOf(output, expected[0].length);
  const moved = [...disagreement, ...swapped(expected, answer, names)];
  // Where too few decisions stay, it is no news that some label loses too many.
  faults.push(...(moved.length > 0 ? moved : lost(yes, kept, ties, names, limits)));
  const constant = names.map((_, k) => yes.every((row) => row[k] === yes[0][k]));
  const share = mean(ties.flat().map(Number));
  let ending = FINE;
  if (share > LARGEST_SHARE_OF_NEAR_TIES && refusesTies) {
    ending = [DEGENERATE, `${percent(share)} of the decisions are near-ties of the Keras model itself`];
  } else if (constant.every(Boolean) && !(sampled && limits.max_abs !== null)) {
    ending = [DEGENERATE, `the Keras model gives every image the ${ALIKE[output.task]}: a constant would agree`];
  }
  if (truth === null) return { faults, ending: endingByTruth(truth, limits, ending, "") };
  const fall = accuracyOf({ ...judged, expected, answer });
  return { faults: [...faults, ...fall.faults], ending: endingByTruth(truth, limits, ending, fall.tooFew) };
}

function noteSureness(expected, answer, { activation }, limits, figures) {
  const sure = (rows) => mean(rows.flat().map((each) => Math.max(each, 1 - each)));
  figures.confidence_shift = sure(answer) - sure(expected);
  if (limits.confidence_shift !== null) {
    figures.smallest_passing_limits.confidence_shift = Math.abs(figures.confidence_shift);
  }
  if (activation !== "sigmoid" || limits.log_max_abs === null || limits.max_abs === null) return;
  // So near to 0 and 1, what is allowed of the probability would be a tenth of it.
  const floor = Math.min(10 * limits.max_abs, 0.25);
  const odds = (each) => {
    const clipped = Math.min(Math.max(each, floor), 1 - floor);
    return Math.log(clipped / (1 - clipped));
  };
  const gaps = expected.map((row, i) => largest(row.map((each, k) => Math.abs(odds(each) - odds(answer[i][k])))));
  figures.log_max_abs = figures.smallest_passing_limits.log_max_abs = largest(gaps);
}

function agreementOf({ expected, answer, kept, ties, output, limits, figures, sampled }) {
  if (output.task !== "multilabel") {
    const tied = ties.map((row) => row.some(Boolean));
    const same = expected.map((row, i) => rankOf(row) === rankOf(answer[i])).filter((_, i) => !tied[i]);
    const another = output.task === "ordinal" ? "rank" : "label";
    return judgeSame(same, tied, limits, figures, sampled, { told: `agreement of ${another}s`, another });
  }
  const clear = kept.map((row, i) => row.filter((_, k) => !ties[i][k]).map(Number)).filter((row) => row.length > 0);
  figures.near_ties = ties.flat().filter(Boolean).length;
  if (clear.length === 0) {
    figures.agreement = 0;
    return [];
  }
  const found = judgeShare(clear.map(mean), mean(clear.flat()), limits.agreement, figures, "agreement", sampled);
  return found ? [`the share of decisions that stay, ${found}`] : [];
}

/** Columns that answer what the Keras model answers in another: less than half as far from it as from their own. */
function swapped(expected, answer, names) {
  const apart = (k, other) => mean(expected.map((row, i) => Math.abs(row[other] - answer[i][k])));
  const moved = [];
  for (const k of range(names.length)) {
    const own = apart(k, k);
    if (!(own > LEAST_SWAP)) continue;
    const others = range(names.length).map((other) => apart(k, other));
    const least = Math.min(...others);
    if (least < own / 2) moved.push([names[k], names[others.indexOf(least)]]);
  }
  if (moved.length < 2) return [];
  const told = moved.slice(0, MOST_TOLD)
    .map(([mine, theirs]) => `the answers to '${mine}' are those of the Keras model to '${theirs}'`);
  const more = moved.length - MOST_TOLD;
  return [told.join(", ") + (more > 0 ? `, and ${more} more are out of place` : "")];
}

/** Labels that lose the pictures to which the Keras model gives them, or those to which it does not. */
function lost(yes, kept, ties, names, limits) {
  const least = 1 - SLACK_OF_A_LABEL * (1 - limits.agreement);
  const told = [];
  for (const [k, name] of names.entries()) {
    for (const [side, words] of [[true, "gives it"], [false, "denies it"]]) {
      const asked = yes.map((row, i) => i).filter((i) => yes[i][k] === side && !ties[i][k]);
      const wrong = asked.filter((i) => !kept[i][k]).length;
      if (wrong > allowedDisagreements(asked.length, least)) {
        const which = `${wrong} of ${asked.length} images to which the Keras model ${words}`;
        told.push(`'${name}': ${which} are decided otherwise`);
      }
    }
  }
  return told.slice(0, MOST_TOLD);
}

function accuracyOf({ expected, answer, output, limits, truth, figures }) {
  if (output.task === "multilabel") {
    const right = [expected, answer].map((rows) => rows.map((row, i) => (
      mean(row.map((each, k) => Number(each > DECIDES === truth[i][k] > 0)))
    )));
    return judgeFall(...right, limits, figures, { words: "the share of right decisions" });
  }
  const right = [expected, answer].map((rows) => rows.map((row, i) => Number(rankOf(row) === truth[i][0])));
  return judgeFall(...right, limits, figures);
}
