/**
 * From pictures of classes to a head: features, training, and the question how well it does.
 *
 * @typedef {import("./teach.js").Class} Class
 */

import { inTurn } from "./engine.js";
import { topLabels } from "./explain.js";
import { LEAST_CLASSES, LEAST_PICTURES, SEED, averaged, heldOutOf, probabilitiesOf, trainHead } from "./teach_head.js";
import { counted } from "./teach_view.js";

/**
 * Why training cannot begin; empty where it can.
 *
 * @param {Class[]} classes
 */
export function lacking(classes) {
  const names = classes.map(({ name }) => name);
  if (classes.length < LEAST_CLASSES) {
    return `There ${classes.length === 1 ? "is one class" : "are no classes"}. Add at least ${LEAST_CLASSES} classes before training.`;
  }
  if (names.includes("")) return `Class ${names.indexOf("") + 1} has no name. Name it before training.`;
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) return `Two classes are called ${twice}. Give each a name of its own.`;
  const few = classes.find(({ pictures }) => pictures.length < LEAST_PICTURES);
  return few ? `${few.name} has ${counted(few.pictures.length)}. Give each class at least ${LEAST_PICTURES} before training.` : "";
}

/**
 * Compute the features of pictures with the artifact that is chosen, where they are not known yet.
 *
 * @param {import("./teach_door.js").Page} page
 * @param {{picture: import("./pixels.js").Picture, features: Float32Array | null, of: string}[]} shown
 * @returns {Promise<{listed: import("./engine.js").Listed, backend: string}>}  what they are of
 */
export async function look(page, shown, progress = (_done, _all) => {}) {
  let by;
  for (const [i, each] of shown.entries()) {
    progress(i, shown.length);
    // A backend that computes in plain JavaScript never lets the page do anything else by itself.
    await new Promise((resolve) => setTimeout(resolve));
    by = await inTurn(async () => {
      const { predictor, listed, backend } = await page.prepare();
      if (!predictor.carriesFeatures) throw new Error(`The model ${listed.name} carries no features. Choose another one.`);
      const source = `${listed.name}/${backend}`;
      if (each.of !== source) {
        const { answers } = await predictor.answer(each.picture, { features: true });
        Object.assign(each, { features: averaged(answers.features), of: source });
      }
      return { listed, backend };
    });
  }
  // Somebody may have chosen another model meanwhile.
  return new Set(shown.map((each) => each.of)).size > 1 ? look(page, shown, progress) : by;
}

/**
 * Train a head and ask it about the pictures that are held out, which are marked as such.
 *
 * @param {import("./teach_door.js").Page} page
 * @param {Class[]} classes  of which `lacking` finds nothing lacking
 * @param {(text: string, share: number) => void} progress  called with what is being done, and with 0..1
 * @returns {Promise<{head: import("./teach_head.js").Head, told: object}>}  `told`: pictures per class on either side, and
 *   how many of those that were held out it got right
 */
export async function learn(page, classes, progress) {
  const labels = classes.flatMap(({ pictures }, label) => pictures.map(() => label));
  const shown = classes.flatMap(({ pictures }) => pictures);
  await look(page, shown, (i, count) => progress(`Looking at ${counted(count)}`, (i / count) * 0.5));
  const heldOut = heldOutOf(labels, SEED);
  const on = (side) => [...shown.keys()].filter((i) => heldOut[i] === side);
  const [learned, asked] = [on(false), on(true)];
  const head = await trainHead(
    learned.map((i) => shown[i].features), learned.map((i) => labels[i]), classes.length,
    (share) => progress("Training", 0.5 + share / 2),
  );
  const says = (i) => topLabels(probabilitiesOf(head, shown[i].features), [], 1)[0].index;
  const correct = asked.filter((i) => says(i) === labels[i]).length;
  const perClass = (side) => classes.map((_, label) => side.filter((i) => labels[i] === label).length);
  for (const i of shown.keys()) shown[i].heldOut = heldOut[i];
  return { head, told: { seed: SEED, pictures: perClass(learned), held_out: perClass(asked), correct } };
}
