/**
 * The self-test: every TF.js artifact answers the published golden set on this device, and is judged by the rules by
 * which Python judges (see comparison/). What comes out has the form of report.json.
 *
 * @typedef {{schema_version: number, at: string, verdict: "verified" | "failed" | "not_verified", exit_code: number,
 *   reasons: string[], model: string, published: string, device: Record<string, any>, integrity: Record<string, any>,
 *   image_files: Record<string, any>[], artifacts: import("./judging.js").Entry[]}} Result
 */

import { inTurn, useBackend } from "../engine.js";
import { FAILED, NOT_VERIFIED, VERIFIED } from "./comparison/compare.js";
import { describeDevice } from "./device.js";
import { readGolden } from "./golden.js";
import { judgeArtifact } from "./judging.js";
import { canCheck, fault, openSite } from "./published.js";

const SCHEMA_VERSION = 1;
const EXIT_CODES = { [VERIFIED]: 0, [FAILED]: 1, [NOT_VERIFIED]: 3 };
const NOTHING = "No test pictures were published with this model, so nothing was compared.";
const NO_CHECKSUMS =
  "The checksums could not be computed: browsers do so over HTTPS, or on the device that serves the page.";

/**
 * @param {{models: import("../engine.js").Listed[], golden: string | undefined, backend: string,
 *   say: (text: string, share: number) => void, signal: AbortSignal}} asked  `golden`: the manifest's path, where
 *   something was published; `say` is told what is being done, and which share of all is
 * @returns {Promise<Result>}
 * @throws {Error} where it was cancelled, or there is no such backend
 */
export async function runSelfTest({ models, golden: path, backend, say, signal }) {
  say("Starting", 0);
  await inTurn(() => useBackend(backend));
  const device = await describeDevice(backend);
  const integrity = { status: NOT_VERIFIED, changed: [], missing: [], checked: 0 };
  const head = { schema_version: SCHEMA_VERSION, model: models[0]?.card.name ?? "", published: "none", device };
  const nothing = { ...head, integrity, image_files: [], artifacts: [] };
  if (!path) return ended(nothing, [NOTHING]);
  const site = await openSite(path, signal).catch((error) => asFault(error, signal));
  if (site instanceof Error) {
    return ended({ ...nothing, integrity: { ...integrity, status: site.status } }, [site.message]);
  }
  say("Reading the test pictures", 0);
  const golden = await readGolden(site).catch((error) => asFault(error, signal));
  const artifacts = [];
  for (const [i, listed] of models.entries()) {
    const tell = (text, share) => say(`${listed.name}: ${text}`, (i + share) / models.length);
    artifacts.push(await judgeArtifact(listed, site, golden, { backend, device, say: tell, signal }));
  }
  const found = { ...head, published: site.manifest.publish, artifacts };
  const checked = { status: integrityOf(site), ...site.integrity };
  const files = { where: device.browser, decoder: "predict.js" };
  if (!(golden instanceof Error)) {
    return ended({ ...found, integrity: checked, image_files: [{ ...files, ...golden.pixels }] }, []);
  }
  const { status, message: reason } = golden;
  return ended({ ...found, integrity: checked, image_files: [{ ...files, files: 0, status, reason }] }, [reason]);
}

/** What went wrong as a value; a cancellation goes on as an exception. */
/** @returns {Error & {status: string}} */
function asFault(error, signal) {
  signal.throwIfAborted();
  return error.status ? error : fault(FAILED, "golden", error.message);
}

function integrityOf({ integrity: { changed, missing } }) {
  if (changed.length + missing.length > 0) return FAILED;
  return canCheck() ? VERIFIED : NOT_VERIFIED;
}

/** The verdict over all, and why it is not `verified`; `known` are the reasons that no part of the result has. */
function ended(result, known) {
  const { artifacts, image_files: files, integrity } = result;
  const runtimes = artifacts.flatMap(({ name, runtimes: all }) => all.map((each) => ({ name, ...each })));
  const statuses = [...runtimes, ...files, integrity].map(({ status }) => status);
  const compared = runtimes.length > 0;
  let verdict = compared && statuses.every((each) => each === VERIFIED) ? VERIFIED : NOT_VERIFIED;
  if (statuses.includes(FAILED)) verdict = FAILED;
  const reasons = [
    ...known,
    ...files.filter(({ reason }) => reason && !known.includes(reason)).map(({ reason }) => `Test pictures: ${reason}.`),
    ...runtimes.filter(({ reason }) => reason).map(({ name, reason }) => `${name}: ${reason}.`),
    ...(compared && integrity.status === NOT_VERIFIED ? [NO_CHECKSUMS] : []),
  ];
  return { ...result, at: new Date().toISOString(), verdict, exit_code: EXIT_CODES[verdict], reasons };
}
