/**
 * What was taught as a file: JSON that this page opens again and that `cutpoint import` makes a Keras head of. Its form is
 * described, and checked, in `pipeline/taught_file.py`; numbers are float32, little-endian, in base64.
 *
 * @typedef {import("./teach_head.js").Head} Head
 * @typedef {import("./pixels.js").Picture} Picture
 * @typedef {{label: number, heldOut: boolean, picture: Picture, probabilities: Float32Array | null}} Shown
 * @typedef {{name: string, labels: string[], head: Head, told: object, shown: Shown[]}} Taught  `told`: what is said of the
 *   training; `shown`: the pictures, none where they are not to be in the file
 */

import { imageToRgb } from "./pixels.js";

export const KIND = "cutpoint-taught-head";
const SCHEMA_VERSION = 1;
/** How many patterns show the model whether it is the one that the head was taught on. */
export const PATTERNS = 8;
const LARGEST_LABELS = 1000;
/** Browsers encode a picture when they are idle, and let it wait for up to a second: not one after the other, then. */
const ENCODED_AT_ONCE = 64;

/** A wave of triangles, 0..255, from a place along it in whole numbers. */
const wave = (place) => Math.min(place % 512, 511 - (place % 512));

/**
 * A picture that is nobody's: coloured stripes, which Python makes alike, in whole numbers.
 *
 * @param {number} index  0..PATTERNS-1
 * @param {number} width  px
 * @param {number} height  px
 * @returns {Picture}
 */
export function pattern(index, width, height) {
  const data = new Uint8Array(width * height * 3);
  const [across, down] = [256 * (1 + (index % 4)), 256 * (1 + (index >> 1))];
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const place = Math.floor((x * across) / width) + Math.floor((y * down) / height);
      for (let c = 0; c < 3; c++, at++) data[at] = wave(place + c * (85 + 31 * index));
    }
  }
  return { data, width, height };
}

function toBase64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

const fromBase64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const packed = (numbers) => toBase64(new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength));

/** The numbers of a text in base64; throws where they are not `count` finite ones. */
function unpacked(text, count) {
  const bytes = fromBase64(text);
  if (bytes.length !== count * 4) throw new Error(`${bytes.length} bytes where ${count * 4} belong`);
  const numbers = new Float32Array(bytes.buffer);
  if (!numbers.every(Number.isFinite)) throw new Error("a number that is none");
  return numbers;
}

async function toPng({ data, width, height }) {
  const canvas = new OffscreenCanvas(width, height);
  const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) {
    for (let c = 0; c < 3; c++) rgba[to + c] = data[from + c];
  }
  canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
  return new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer());
}

async function packedPicture({ label, heldOut, picture, probabilities }) {
  const answer = probabilities ? packed(probabilities) : null;
  return { label, held_out: heldOut, png: toBase64(await toPng(picture)), probabilities: answer };
}

/**
 * Write what was taught as a file.
 *
 * @param {Taught} taught
 * @param {import("./engine.js").Listed} listed  the artifact that it was taught on
 * @param {string} backend
 * @param {{features: Float32Array[], probabilities: Float32Array[]}} seen  what artifact and head gave of the patterns
 * @returns {Promise<Blob>}
 */
export async function toFile({ name, labels, head, told, shown }, { card, name: artifact }, backend, seen) {
  const pictures = [];
  for (let i = 0; i < shown.length; i += ENCODED_AT_ONCE) {
    pictures.push(...(await Promise.all(shown.slice(i, i + ENCODED_AT_ONCE).map(packedPicture))));
  }
  const json = {
    kind: KIND, schema_version: SCHEMA_VERSION, name, created_from: card.created_from, backbone: card.backbone,
    cut: card.cut[card.cut.length - 1], resize: card.resize, artifact, precision: card.precision, backend,
    pooling: "average", labels,
    head: { width: head.width, kernel: packed(head.kernel), bias: packed(head.bias) },
    training: told,
    patterns: { features: seen.features.map(packed), probabilities: seen.probabilities.map(packed) },
    pictures,
  };
  return new Blob([JSON.stringify(json, null, 1)], { type: "application/json" });
}

/**
 * Open such a file.
 *
 * @param {File} file
 * @param {import("./predict.js").Card} card  of the model that is loaded
 * @returns {Promise<Taught>}
 * @throws {Error} where it is none, or of another model
 */
export async function fromFile(file, card) {
  let json;
  try {
    json = JSON.parse(await file.text());
  } catch {
    json = null;
  }
  if (json?.kind !== KIND || json.schema_version !== SCHEMA_VERSION) {
    throw new Error(`${file.name} is not a file of taught classes. Choose one that this page wrote.`);
  }
  if (json.created_from !== card.created_from) {
    throw new Error(`${file.name} was taught on another model (${json.backbone?.name}). Open it on the page of that model.`);
  }
  try {
    return await opened(json, card);
  } catch (fault) {
    throw new Error(`${file.name} is damaged (${fault.message}). Download it again from the page that wrote it.`);
  }
}

async function opened({ name, labels, head: { width, kernel, bias }, training: told, pictures }, { resize }) {
  const classes = labels.length;
  const named = labels.every((label) => typeof label === "string" && label) && new Set(labels).size === classes;
  if (!named || classes < 2 || classes > LARGEST_LABELS) throw new Error("its labels are no names");
  const counts = [...told.pictures, ...told.held_out, told.correct];
  if (counts.length !== 2 * classes + 1 || !counts.every((each) => Number.isInteger(each) && each >= 0)) {
    throw new Error("what it says of the training is no count of pictures");
  }
  const head = { kernel: unpacked(kernel, width * classes), bias: unpacked(bias, classes), width, classes };
  const shown = [];
  for (const { label, held_out: heldOut, png, probabilities } of pictures) {
    const picture = await imageToRgb(new Blob([fromBase64(png)]));
    const fits = picture.width === resize.width && picture.height === resize.height;
    if (!fits || !Number.isInteger(label) || label < 0 || label >= classes) throw new Error("a picture does not fit");
    const answer = probabilities === null ? null : unpacked(probabilities, classes);
    shown.push({ label, heldOut: heldOut === true, picture, probabilities: answer });
  }
  return { name: String(name), labels, head, told, shown };
}
