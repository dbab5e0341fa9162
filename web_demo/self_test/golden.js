/**
 * The golden set as far as it is published: test pictures as the model takes them, and the Keras model's answers.
 *
 * @typedef {import("./comparison/compare.js").Values} Values
 * @typedef {{count: number, images: (index: number) => import("../predict.js").Images,
 *   reference: Record<string, Values>, truth: Record<string, Values>, sampled: boolean}} Part  `sampled`: a few
 *   pictures of the golden set, not all of it
 * @typedef {{files: number, status: string, reason: string}} Pixels  whether decoding and resizing give Python's pixels
 * @typedef {{whole: Part | null, files: Part | null, pixels: Pixels}} Golden  `whole`: all of it as arrays
 */

import { encodeCells, imageToRgb, resize } from "../predict.js";
import { FAILED, NOT_VERIFIED, VERIFIED } from "./comparison/compare.js";
import { readNpz } from "./npz.js";
import { canCheck, fault, sha256 } from "./published.js";

const FOLDER = "golden";
const EXPECTED = `${FOLDER}/files/expected.json`;
const [IMAGES, REFERENCE] = [`${FOLDER}/images.npz`, `${FOLDER}/reference.npz`];
const TRUTH = "labels_";

/**
 * @param {import("./published.js").Site} site
 * @returns {Promise<Golden>}
 * @throws {Error} a `fault` where something is missing, changed, or not as the export writes it
 */
export async function readGolden(site) {
  const { card, files: listed } = site.manifest;
  const none = { files: 0, status: NOT_VERIFIED, reason: "there are no golden files: nothing was compared" };
  const { part, pixels } = Object.hasOwn(listed, EXPECTED) ? await readFiles(site, card) : { part: null, pixels: none };
  const whole = [IMAGES, REFERENCE].every((path) => Object.hasOwn(listed, path)) ? await readArrays(site, card) : null;
  return { whole, files: part, pixels };
}

/** Do something with a file of the golden set; whatever goes wrong names the file. */
async function reading(path, task) {
  try {
    return await task();
  } catch (error) {
    if (error.status) throw error;
    throw fault(FAILED, "golden", `${path} cannot be read: ${error.message}`);
  }
}

async function readFiles(site, card) {
  const bytes = await site.get(EXPECTED);
  const expected = await reading(EXPECTED, () => expectedOf(bytes, card));
  const named = new Set([EXPECTED, ...expected.map(({ file }) => `${FOLDER}/files/${file}`)]);
  const missing = site.paths(`${FOLDER}/files`).filter((path) => !named.has(path));
  if (missing.length > 0) throw fault(FAILED, "missing", `${missing[0]} is missing`);
  const pictures = await Promise.all(expected.map(async ({ file, columns, pixels_sha256 }) => {
    const path = `${FOLDER}/files/${file}`;
    const picture = await site.get(path);
    return reading(path, async () => {
      const { data } = resize(await imageToRgb(new Blob([picture])), card.resize);
      const same = canCheck() ? (await sha256(data)) === pixels_sha256 : null;
      return { data, same, file, columns: columns ? encodeCells(card.columns, [columns]) : undefined };
    });
  }));
  const reference = await reading(EXPECTED, () => stacked(expected.map(({ outputs }) => outputs)));
  const { height, width } = card.resize;
  const images = (i) => ({
    data: pictures[i].data, shape: [1, height, width, 3], ...(pictures[i].columns && { columns: pictures[i].columns }),
  });
  const part = { count: pictures.length, images, reference, truth: {}, sampled: true };
  return { part, pixels: pixelsOf(pictures) };
}

function expectedOf(bytes, card) {
  const { files } = JSON.parse(new TextDecoder().decode(bytes));
  if (!Array.isArray(files)) throw new Error("it lists no files");
  for (const { file, columns } of files) {
    if (typeof file !== "string" || file.includes("/")) throw new Error(`it lists a file called ${file}`);
    if (Boolean(columns) !== Boolean(card.columns?.length)) {
      const told = columns ? "columns, and the card names none" : "no columns, and the card names some";
      throw new Error(`${file} has ${told}`);
    }
  }
  return files;
}

function pixelsOf(pictures) {
  const files = pictures.length;
  if (files === 0) return { files, status: NOT_VERIFIED, reason: "there are no golden files: nothing was compared" };
  const other = pictures.filter(({ same }) => same === false);
  if (other.length > 0) {
    const found = `${other.length} of ${files} golden files give other pixels: ${other[0].file}`;
    const reason = `decoded and resized here, ${found}. A browser that hides who uses it may change pixels: allow this `
      + "page to read them, or take another browser";
    return { files, status: FAILED, reason };
  }
  if (pictures.some(({ same }) => same === null)) {
    const reason = "the checksums of the decoded pictures could not be computed here";
    return { files, status: NOT_VERIFIED, reason };
  }
  return { files, status: VERIFIED, reason: "" };
}

/** Turn a nested list into its numbers and its shape; a list of uneven lists is refused. */
function flattened(values) {
  const shape = [];
  for (let each = values; Array.isArray(each); each = each[0]) shape.push(each.length);
  const data = [values].flat(Infinity);
  const even = (each, depth) => (depth === shape.length
    ? typeof each === "number"
    : Array.isArray(each) && each.length === shape[depth] && each.every((inner) => even(inner, depth + 1)));
  if (shape.length === 0 || !even(values, 0)) throw new Error("an answer is no array of numbers");
  return { data: Float32Array.from(data), shape };
}

/** Put the answers to one picture each together, by output. */
function stacked(rows) {
  const names = Object.keys(rows[0] ?? {});
  return Object.fromEntries(names.map((name) => {
    const answers = rows.map((row) => flattened(Object.hasOwn(row, name) ? row[name] : null));
    const [{ data, shape }] = answers;
    const uneven = answers.some((each) => String(each.shape) !== String(shape));
    if (uneven) throw new Error(`the answers of ${name} differ in shape`);
    const all = new Float32Array(answers.length * data.length);
    answers.forEach((each, i) => all.set(each.data, i * data.length));
    return [name, { data: all, shape: [answers.length, ...shape] }];
  }));
}

async function readArrays(site, card) {
  const [given, reference] = await Promise.all([IMAGES, REFERENCE].map(async (path) => {
    const bytes = await site.get(path);
    return reading(path, () => readNpz(bytes));
  }));
  return reading(IMAGES, () => {
    const { images, columns, ...rest } = given;
    const { height, width } = card.resize;
    const [count, ...size] = images?.shape ?? [];
    if (!(images?.data instanceof Uint8Array) || String(size) !== String([height, width, 3])) {
      throw new Error(`its images are ${images?.shape ?? "not there"}, which the model does not take`);
    }
    if (Boolean(columns) !== Boolean(card.columns?.length)) throw new Error("its columns are not those of the card");
    const truth = Object.fromEntries(Object.entries(rest).map(([name, values]) => [name.replace(TRUTH, ""), values]));
    for (const [name, { shape }] of [...Object.entries(given), ...Object.entries(reference)]) {
      if (shape[0] !== count) throw new Error(`it holds ${count} images, and ${shape[0]} of ${name}`);
    }
    const row = ({ data }, i) => data.subarray((i * data.length) / count, ((i + 1) * data.length) / count);
    const one = (i) => ({
      data: row(images, i), shape: [1, height, width, 3], ...(columns && { columns: row(columns, i) }),
    });
    return { count, images: one, reference, truth, sampled: false };
  });
}
