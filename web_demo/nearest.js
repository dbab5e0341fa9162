/**
 * The nearest pictures by an embedding, among the published test pictures and those that somebody keeps during the visit.
 *
 * The Keras model's answers to published pictures come with their list, so none of them has to be answered here first.
 *
 * @typedef {{id: string, title: string, address: string, vectors: Record<string, ArrayLike<number>>}} Known  `id` tells a
 *   picture from all others; `vectors` by head
 * @typedef {{known: Known, cosine: number}} Neighbour
 * @typedef {{picture: {name: string, id?: string}, answers: Record<string, import("./predict.js").Answer>}} Answered
 */

import { element } from "./answers.js";

const SHOWN = 5;
// Each holds a picture in the memory of the browser.
const MOST_KEPT = 100;
const THUMBNAIL_PX = 128;

/** The cosine of the angle between two vectors, -1..1; 0 where one has no direction. */
export function cosineOf(one, other) {
  let [product, first, second] = [0, 0, 0];
  for (let i = 0; i < one.length; i++) {
    product += one[i] * other[i];
    first += one[i] ** 2;
    second += other[i] ** 2;
  }
  const lengths = Math.sqrt(first) * Math.sqrt(second);
  return lengths > 0 ? product / lengths : 0;
}

/**
 * The pictures that are nearest to a vector, nearest first; of equally near ones, the one known first.
 *
 * @param {Known[]} among
 * @param {string} head
 * @param {ArrayLike<number>} vector
 * @param {string | null} [itself]  the `id` of what is looked for, which is never named
 * @returns {Neighbour[]}
 */
export function nearest(among, head, vector, itself) {
  return among
    .filter(({ id, vectors }) => id !== itself && vectors[head]?.length === vector.length)
    .map((known) => ({ known, cosine: cosineOf(vector, known.vectors[head]) }))
    .sort((a, b) => b.cosine - a.cosine)
    .slice(0, SHOWN);
}

/** Who is near, in a few words; empty where nobody is. */
export const nearestSentence = ([first]) => (first ? `Most like ${first.known.title}, cosine ${first.cosine.toFixed(3)}` : "");

/** The elements that show neighbours: a picture each, with its cosine. */
export function elementsOfNeighbours(neighbours) {
  if (neighbours.length === 0) {
    return [element("p", "note", "There is no picture to compare with: no test pictures are published, and none was kept.")];
  }
  const list = element("ol", "nearest", ...neighbours.map(({ known, cosine }) => {
    const picture = Object.assign(new Image(), { src: known.address, alt: known.title });
    const item = element("li", "", picture, element("span", "share", cosine.toFixed(3)));
    Object.assign(item.dataset, { testid: "neighbour", id: known.id, cosine: String(cosine) });
    return item;
  }));
  return [element("p", "note", "Nearest pictures, by the cosine of their embeddings"), list];
}

/**
 * Collect the pictures to compare with.
 *
 * @param {HTMLElement} panel  shown while the model has an embedding
 * @param {HTMLCanvasElement} canvas  shows the picture
 * @param {() => Answered | null} answered  the picture that was answered last
 * @param {() => void} changed  called when it was kept
 */
export function startNeighbours(panel, canvas, answered, changed) {
  /** @type {Known[]} */
  let published = [];
  /** @type {Known[]} */
  const kept = [];
  /** @type {string[]} */
  let embeddings = [];
  let count = 0;
  const [button, told] = [panel.querySelector("button"), panel.querySelector("output")];

  async function keep() {
    const found = answered();
    if (!found) {
      told.textContent = "There is no answer yet. Show the model a picture first.";
      return;
    }
    const { picture, answers } = found;
    if (picture.id) {
      told.textContent = "This picture is one of those to compare with already.";
      return;
    }
    count += 1;
    const [id, title] = [`kept-${count}`, `kept picture ${count} (${picture.name})`];
    picture.id = id;
    const vectors = Object.fromEntries(embeddings.map((head) => [head, answers[head].data]));
    kept.push({ id, title, address: URL.createObjectURL(await thumbnail(canvas)), vectors });
    if (kept.length > MOST_KEPT) URL.revokeObjectURL(kept.shift().address);
    told.textContent = `${kept.length === 1 ? "One picture is" : `${kept.length} pictures are`} kept until this page is closed.`;
    changed();
  }

  button.addEventListener("click", keep);
  return {
    /** Follow a change of model. @param {import("./predict.js").Card} card */
    follow(card) {
      embeddings = card.outputs.filter(({ task }) => task === "embedding").map(({ name }) => name);
      panel.hidden = embeddings.length === 0;
    },

    /** Take the published pictures. @param {Known[]} pictures */
    publish(pictures) {
      published = pictures;
    },

    /** The pictures nearest to an answer, see `nearest`. */
    of: (head, vector, itself) => nearest([...published, ...kept], head, vector, itself),
  };
}

/** A small copy of a canvas as a PNG. */
async function thumbnail(canvas) {
  const scale = Math.min(1, THUMBNAIL_PX / Math.max(canvas.width, canvas.height));
  const small = new OffscreenCanvas(Math.max(1, Math.round(canvas.width * scale)), Math.max(1, Math.round(canvas.height * scale)));
  small.getContext("2d").drawImage(canvas, 0, 0, small.width, small.height);
  return small.convertToBlob();
}
