/**
 * Judges one artifact: its files and its card first, then its answers to the golden set, one picture after the other.
 *
 * @typedef {{name: string, format: string, precision: string, size_bytes: number, sha256: Record<string, string>,
 *   runtimes: Record<string, any>[]}} Entry  as report.json has it, with a single runtime
 * @typedef {{backend: string, device: {kind: string, browser: string}, say: (text: string, share: number) => void,
 *   signal: AbortSignal}} Asked
 */

import { inTurn, tf, useBackend } from "../engine.js";
import { loadArtifact, predict } from "../predict.js";
import { FAILED, NOT_VERIFIED, VERIFIED, compare, limitsOf, worst } from "./comparison/compare.js";
import { quantile } from "./comparison/measures.js";
import { canonical, cardFault, fault } from "./published.js";

const WARM_UPS = 3;
const LEAST_TIMES = 20;
const UNLISTED = "the manifest lists none of its files: it is not of this export";
const UNUSABLE = "it was not asked, as the golden set cannot be used";
const OTHER_CARD = "the page shows another card than its own";
const NO_IMAGES = "there are no images to compare on: nothing was compared";
/** So often the page can draw and hear its buttons between two pictures. */
const BREATH_MS = 30;

/**
 * @param {import("../engine.js").Listed} listed
 * @param {import("./published.js").Site} site
 * @param {import("./golden.js").Golden | Error} golden  or why there is none
 * @param {Asked} asked
 * @returns {Promise<Entry>}
 * @throws {DOMException} where it was cancelled
 */
export async function judgeArtifact(listed, site, golden, asked) {
  const { manifest } = site;
  const [format, precision] = listed.name.split("-");
  const prefix = `artifacts/${listed.name}/`;
  const paths = site.paths(`artifacts/${listed.name}`);
  const sha256 = Object.fromEntries(paths.map((path) => [path.slice(prefix.length), manifest.files[path]]));
  const entry = { name: listed.name, format, precision, size_bytes: listed.size_bytes, sha256 };
  const { backend, device, say, signal } = asked;
  const runtime = {
    runner: `tfjs-${device.kind}`, version: tf.version_core, backend, where: device.browser,
    images: 0, of_images: 0, latency_ms: {}, outputs: {},
  };
  try {
    say("checksums", 0);
    const files = await filesOf(paths, prefix, site);
    const card = checkedCard(files, listed, manifest.card, precision);
    const limits = readLimits(manifest.limits[precision]);
    if (golden instanceof Error) throw fault(NOT_VERIFIED, "golden", UNUSABLE);
    const found = await judgeAnswers(files, golden, card, limits, asked);
    return { ...entry, runtimes: [{ ...runtime, ...found }] };
  } catch (error) {
    signal.throwIfAborted();
    const { status = FAILED, check = "runtime", message } = error;
    return { ...entry, runtimes: [{ ...runtime, status, check, reason: message }] };
  }
}

/** All files of an artifact that are listed; every one that is changed or missing is named. */
async function filesOf(paths, prefix, site) {
  if (paths.length === 0) throw fault(FAILED, "checksum", UNLISTED);
  /** @type {any[]} */
  const read = await Promise.allSettled(paths.map((path) => site.get(path)));
  const faults = read.filter(({ status }) => status === "rejected").map(({ reason }) => reason);
  if (faults.length > 0) {
    const status = worst(faults.map((each) => each.status ?? FAILED));
    throw fault(status, faults[0].check, `${faults.map(({ message }) => message).join("; ")}; it was not loaded`);
  }
  return new Map(paths.map((path, i) => [path.slice(prefix.length), read[i].value]));
}

function checkedCard(files, listed, promised, precision) {
  let card;
  try {
    card = JSON.parse(new TextDecoder().decode(files.get("card.json")));
  } catch (error) {
    throw fault(FAILED, "card", `its card cannot be read: ${error.message}`);
  }
  const told = cardFault(card, promised, precision);
  if (told) throw fault(FAILED, "card", told);
  if (canonical(card) !== canonical(listed.card)) throw fault(FAILED, "card", OTHER_CARD);
  return card;
}

function readLimits(limits) {
  if (!limits) throw fault(NOT_VERIFIED, "limits", "the manifest has no limits for this precision");
  try {
    return limitsOf(limits);
  } catch (error) {
    throw fault(FAILED, "limits", `the limits cannot be read: ${error.message}`);
  }
}

/** Load an artifact from the files that were checked, let it answer, and judge its answers. */
async function judgeAnswers(files, golden, card, limits, { backend, say, signal }) {
  const parts = [golden.whole, golden.files].filter((part) => part?.count > 0);
  if (parts.length === 0) throw fault(NOT_VERIFIED, "golden", NO_IMAGES);
  const read = async (path) => {
    if (!files.has(path)) throw new Error(`${path} is not listed in the manifest`);
    return files.get(path);
  };
  const here = (task) => inTurn(async () => {
    // Between two pictures the page may have been asked to compute with another one.
    if (tf.getBackend() !== backend) await useBackend(backend);
    return task();
  });
  say("loading", 0);
  const model = await here(() => loadArtifact(tf, read)).catch((error) => {
    throw fault(FAILED, "runtime", `it could not be loaded: ${error.message}`);
  });
  try {
    const total = parts.reduce((sum, { count }) => sum + count, 0);
    let done = 0;
    const next = () => {
      done += 1;
      say(`picture ${done} of ${total}`, done / (total + 1));
    };
    const start = performance.now();
    const one = (images) => timed(model, images, here, signal);
    const { answers, times } = await answersOf(parts[0], one, next);
    const latency_ms = { median: quantile(times, 0.5), p95: quantile(times, 0.95) };
    // Few as they are, near-ties of the published pictures decide nothing.
    const judge = (part, found) => compare(part.reference, found, card.outputs, limits, part.truth, {
      sampled: part.sampled, refusesTies: true,
    });
    let entry = { ...summary(parts[0], judge(parts[0], answers)), latency_ms };
    if (parts.length > 1) {
      const ofFiles = await answersOf(parts[1], one, next);
      entry = withFiles(entry, judge(parts[1], ofFiles.answers), parts[1]);
    }
    return { ...entry, inference_s: Math.round(performance.now() - start) / 1000 };
  } finally {
    model.dispose();
  }
}

/** The answer to one picture, and how long it took; the page may do something else before. */
async function timed(model, images, here, signal) {
  await breathe();
  signal.throwIfAborted();
  return here(async () => {
    const start = performance.now();
    const found = await predict(tf, model, images);
    return { found, ms: performance.now() - start };
  });
}

let breathed = 0;
async function breathe() {
  if (performance.now() - breathed < BREATH_MS) return;
  await new Promise((resolve) => setTimeout(resolve));
  breathed = performance.now();
}

/** The answers to all pictures, by output; the first ones, which compile kernels, are not timed. */
async function answersOf({ count, images }, one, next) {
  for (let i = 0; i < WARM_UPS; i++) await one(images(0));
  const times = [];
  // An output may be called as something that every object has.
  const answers = Object.create(null);
  for (let i = 0; i < count; i++) {
    const { found, ms } = await one(images(i));
    times.push(ms);
    for (const [name, { data, shape }] of Object.entries(found)) {
      answers[name] ??= { data: new Float32Array(count * data.length), shape: [count, ...shape.slice(1)] };
      answers[name].data.set(data, i * data.length);
    }
    next();
  }
  while (times.length < LEAST_TIMES) times.push((await one(images(0))).ms);
  return { answers, times };
}

function summary({ count, sampled }, compared) {
  const named = Object.entries(compared);
  const outputs = named.map(([name, { figures, status, reason }]) => [name, { ...figures, status, reason }]);
  return {
    images: count,
    of_images: count,
    sampled,
    status: worst(named.map(([, { status }]) => status)),
    reason: named.filter(([, { reason }]) => reason).map(([name, { reason }]) => `${name}: ${reason}`).join("; "),
    outputs: Object.fromEntries(outputs),
  };
}

/** Where all of the golden set is judged, the answers to the picture files must not differ from Keras's either. */
function withFiles(entry, compared, { count }) {
  const failed = Object.entries(compared).filter(([, { status }]) => status === FAILED);
  const reason = failed.map(([name, each]) => `${name}, of picture files: ${each.reason}`).join("; ");
  const max_abs = Math.max(...Object.values(compared).map(({ figures }) => figures.max_abs ?? 0));
  const files = { images: count, max_abs, status: failed.length > 0 ? FAILED : VERIFIED, reason };
  if (failed.length === 0) return { ...entry, files };
  return { ...entry, files, status: FAILED, check: "files", reason: [entry.reason, reason].filter(Boolean).join("; ") };
}
