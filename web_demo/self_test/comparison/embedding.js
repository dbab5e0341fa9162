/** Judges embeddings by their directions and by what is near what, as `exporters/gates_embedding.py` does. */

import { DEGENERATE, FINE, LARGEST_SHARE_OF_NEAR_TIES, NOT_VERIFIED, percent } from "./gates.js";
import {
  allowedDisagreements, largest, leastCosine, lostSimilarity, mean, norm, quantile, similarities,
} from "./measures.js";

/** Two pictures are as near as each other where their cosines to a third differ by no more. */
const NEAR_TIE_OF_SIMILARITY = 0.01;
/** Whole numbers, in steps of 1/128, bring lengths that are off by some hundredths. */
const LARGEST_LENGTH_ERROR = 0.1;

/**
 * @param {import("./gates.js").Judged} judged
 * @returns {import("./gates.js").Judgement}
 */
export function judgeEmbedding({ expected, answer, limits, figures, sampled }) {
  const kept = lostSimilarity(expected, answer).map((each) => each <= NEAR_TIE_OF_SIMILARITY);
  const share = mean(kept.map(Number));
  const least = leastCosine(expected, answer);
  const lengthError = largest(answer.map((row) => Math.abs(norm(row) - 1)));
  Object.assign(figures, { least_cosine: least, neighbours: share, length_error: lengthError });
  Object.assign(figures.smallest_passing_limits, { least_cosine: least, neighbours: share });
  if (limits.least_cosine === null || limits.neighbours === null) {
    const why = "these limits hold no cosine and no share of neighbours by which an embedding is judged";
    return { faults: [], ending: [NOT_VERIFIED, why] };
  }
  const faults = [];
  if (!(least >= limits.least_cosine)) {
    const found = `${Number(least.toPrecision(7))}, under ${Number(limits.least_cosine.toPrecision(7))}`;
    faults.push(`the least cosine to the Keras model's embedding of the same image is ${found}`);
  }
  const wrong = kept.filter((each) => !each).length;
  const allowed = allowedDisagreements(kept.length, limits.neighbours);
  if (sampled) Object.assign(figures, { disagreements: wrong, allowed_disagreements: allowed });
  if (sampled ? wrong > allowed : share < limits.neighbours) {
    const told = `${wrong} of ${kept.length} images get another nearest neighbour`;
    faults.push(`${told}; ${percent(limits.neighbours)} must keep theirs`);
  }
  // Along an embedding no more may be off than across it.
  const longest = Math.min(LARGEST_LENGTH_ERROR, Math.sqrt(2 * (1 - limits.least_cosine)));
  if (lengthError > longest) {
    faults.push(`an embedding's length is off by ${lengthError.toPrecision(2)}, more than ${longest.toPrecision(2)}`);
  }
  const alike = anyNeighbourPasses(expected);
  // Of a sample, the directions tell a constant from the model; that many are alike is no fault of its pictures.
  if (!(alike > LARGEST_SHARE_OF_NEAR_TIES) || sampled) return { faults, ending: FINE };
  const told = `${percent(alike)} of the images are as near to most others as to the nearest`;
  return { faults, ending: [DEGENERATE, told] };
}

/** The share of pictures of whose other ones at least half are as near as the nearest: whoever guesses passes. */
function anyNeighbourPasses(expected) {
  return mean(similarities(expected).map((row, i) => {
    const others = row.filter((_, k) => k !== i);
    return Number(largest(others) - quantile(others, 0.5) <= NEAR_TIE_OF_SIMILARITY);
  }));
}
