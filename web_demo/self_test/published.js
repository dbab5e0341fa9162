/**
 * What is published of a result folder: each file is held against its checksum in the manifest before it is used.
 *
 * @typedef {{schema_version: number, publish: string, card: import("../predict.js").Card,
 *   limits: Record<string, Record<string, number | null>>, files: Record<string, string>}} Manifest  `files`: path ->
 *   sha256
 * @typedef {{manifest: Manifest, integrity: Integrity, get: (path: string) => Promise<ArrayBuffer>,
 *   paths: (folder: string) => string[]}} Site
 * @typedef {{changed: string[], missing: string[], checked: number}} Integrity
 */

import { FAILED, NOT_VERIFIED } from "./comparison/compare.js";

const SCHEMA_VERSION = 1;

/** Whether this browser computes checksums here: over plain HTTP it does so only for pages of the device itself. */
export const canCheck = () => Boolean(globalThis.crypto?.subtle);

/** An error that says how a comparison ends because of it. */
export const fault = (status, check, text) => Object.assign(new Error(text), { status, check });

/** The sha256 of bytes in hexadecimal digits. */
export async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function fetched(path, signal) {
  const address = new URL(path.split("/").map(encodeURIComponent).join("/"), document.baseURI);
  let response;
  try {
    response = await fetch(address, { signal });
    if (response.ok) return await response.arrayBuffer();
  } catch (error) {
    signal.throwIfAborted();
    const told = `${path} could not be fetched (${error.message}): look whether the server still runs`;
    throw fault(NOT_VERIFIED, "fetch", told);
  }
  throw fault(FAILED, "missing", `${path} is missing: ${response.status} ${response.statusText}`.trim());
}

/**
 * Read the manifest, and give what reads the files that it lists.
 *
 * @param {string} path  of the manifest
 * @param {AbortSignal} signal  stops what is being fetched
 * @returns {Promise<Site>}  `get` throws a `fault` where a file is not listed, missing or changed
 */
export async function openSite(path, signal) {
  const manifest = manifestOf(await fetched(path, signal), path);
  const integrity = { changed: [], missing: [], checked: 0 };
  async function get(name) {
    if (!Object.hasOwn(manifest.files, name)) throw fault(FAILED, "checksum", `${name} is not listed in the manifest`);
    const bytes = await fetched(name, signal).catch((error) => {
      if (error.check === "missing") integrity.missing.push(name);
      throw error;
    });
    if (!canCheck()) return bytes;
    integrity.checked += 1;
    if ((await sha256(bytes)) === manifest.files[name]) return bytes;
    integrity.changed.push(name);
    throw fault(FAILED, "checksum", `${name} was changed since the export, as its checksum tells`);
  }
  const paths = (folder) => Object.keys(manifest.files).filter((name) => name.startsWith(`${folder}/`));
  return { manifest, integrity, get, paths };
}

function manifestOf(bytes, path) {
  const wrong = (why) => fault(FAILED, "manifest", `${path} cannot be read: ${why}`);
  let manifest;
  try {
    manifest = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw wrong(error.message);
  }
  if (manifest?.schema_version !== SCHEMA_VERSION) throw wrong(`it is not of schema_version ${SCHEMA_VERSION}`);
  const parts = [manifest.files, manifest.limits, manifest.card];
  const whole = parts.every((part) => part && typeof part === "object");
  if (!whole) throw wrong("checksums, limits or the card are missing");
  return manifest;
}

/** A JSON value as a text that is the same whatever the order of its keys. */
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join()}}`;
}

/**
 * What a card promises otherwise than the Keras model's, as `exporters/papers.py` asks; empty where nothing.
 *
 * @param {import("../predict.js").Card} card  the artifact's
 * @param {import("../predict.js").Card} promised  the golden set's
 * @param {string} precision  what the artifact's name says
 */
export function cardFault(card, promised, precision) {
  if (card.precision !== precision) return `its card says precision ${card.precision}, its name ${precision}`;
  if (card.created_from !== promised.created_from) return "its card belongs to another run than the golden set";
  for (const output of promised.outputs) {
    const mine = card.outputs?.find(({ name }) => name === output.name);
    if (!mine) return `its card has no output '${output.name}'`;
    if (canonical(mine.labels) !== canonical(output.labels)) {
      return `its card lists the labels of '${output.name}' otherwise than the Keras model does`;
    }
  }
  // A model may be trained in one installation and exported in another.
  const core = (/** @type {any} */ { versions: _, precision: __, ...rest }) => canonical(rest);
  return core(card) === core(promised) ? "" : "its card describes the model otherwise than the golden set's does";
}
