/** What a self-test found, for people: a table of texts, one sentence, and both as Markdown. */

import { BACKENDS } from "../engine.js";

export const HEADINGS = [
  "Model", "Output", "Verdict", "Largest difference", "Limit", "Agreement", "Least", "Pictures", "Median",
  "95th percentile",
];
/** How many of the first cells are words; the others are numbers. */
export const WORDS = 3;
const NOT_JUDGED = "not judged";
const STATUS_WORDS = { not_verified: "not verified", not_enough_images: "not enough pictures" };

/** A status in words. */
export const inWords = (status) => STATUS_WORDS[status] ?? status;

/** Two digits of a difference, small ones as in 1.3e-6. */
function difference(value) {
  if (value === 0 || value >= 1e-3) return String(Number(value.toPrecision(2)));
  return value.toExponential(1).replace(".0e", "e");
}

const share = (value) => `${Number((100 * value).toFixed(2))} %`;
const duration = (value) => (value === undefined ? "" : `${value.toFixed(1)} ms`);
const known = (value, text) => (value === undefined || value === null ? null : text(value));

/** Difference, limit, agreement and least agreement of one output, in the measures by which its task is judged. */
function measured({ task, limits, ...figures }) {
  if (!limits) return ["", "", "", ""];
  if (task === "regression") {
    return [`${share(figures.relative_error)} of spread`, share(limits.relative_error), "", ""];
  }
  const [value, least] = {
    embedding: [figures.neighbours, limits.neighbours], boxes: [figures.iou, limits.iou],
  }[task] ?? [figures.agreement, limits.agreement];
  return [
    difference(figures.max_abs), known(limits.max_abs, difference) ?? NOT_JUDGED,
    known(value, share) ?? "", known(least, share) ?? NOT_JUDGED,
  ];
}

/**
 * @param {import("./run.js").Result} result
 * @returns {{status: string, cells: string[]}[]}  a row for each output of each artifact; cells as HEADINGS
 */
export function rowsOf({ artifacts }) {
  return artifacts.flatMap(({ name, runtimes }) => runtimes.flatMap(({ outputs, status, images, latency_ms }) => {
    const rest = [String(images), duration(latency_ms.median), duration(latency_ms.p95)];
    const judged = Object.entries(outputs);
    if (judged.length === 0) return [{ status, cells: [name, "", inWords(status), "", "", "", "", ...rest] }];
    return judged.map(([output, figures]) => (
      { status: figures.status, cells: [name, output, inWords(figures.status), ...measured(figures), ...rest] }
    ));
  }));
}

/** What was found, in one sentence. */
export function verdictSentence({ verdict, artifacts, reasons, device }, backend) {
  const { title } = BACKENDS[backend];
  if (verdict === "verified") {
    const count = artifacts.length === 1 ? "1 model answers" : `${artifacts.length} models answer`;
    const images = Math.min(...artifacts.flatMap(({ runtimes }) => runtimes.map((each) => each.images)));
    return `Verified: on this device, with ${title}, ${count} as the Keras model does, on ${images} test pictures.`;
  }
  const rest = reasons.length > 1 ? ` And ${reasons.length - 1} more.` : "";
  const first = reasons[0] ?? `nothing was compared in ${device.browser}`;
  return `${verdict === "failed" ? "Failed" : "Not verified"}: ${first}${rest}`;
}

const inCell = (text) => String(text).replace(/[\r\n]+/g, " ").replace(/\|/g, "\\|");
const line = (cells) => `| ${cells.map(inCell).join(" | ")} |`;

/**
 * @param {import("./run.js").Result} result
 * @param {string} backend
 * @returns {string}  a heading, the device, a table and what is wrong
 */
export function toMarkdown(result, backend) {
  const { device, integrity, image_files: [files], artifacts, reasons, published, model, verdict, at } = result;
  const { runner, version } = artifacts[0]?.runtimes[0] ?? {};
  const hardware = [
    device.platform, device.cores && `${device.cores} logical cores`,
    device.memory_gb && `at least ${device.memory_gb} GB of memory`, device.threads && `${device.threads} threads`,
    device.gpu,
    device.cross_origin_isolated ? "cross-origin isolated" : "not cross-origin isolated",
  ];
  const facts = [
    ["Browser", `${device.browser} (${device.user_agent})`],
    ["Device", hardware.filter(Boolean).join(", ")],
    ["Backend", [backend, runner && `${runner} ${version}`].filter(Boolean).join(", ")],
    ["Test pictures", `${published}${files ? `; decoded and resized: ${inWords(files.status)}` : ""}`],
    ["Checksums", `${inWords(integrity.status)}, ${integrity.checked} files`],
    ["Time", at],
  ];
  const right = HEADINGS.map((_, i) => (i < WORDS ? "---" : "---:"));
  const table = [line(HEADINGS), line(right), ...rowsOf(result).map(({ cells }) => line(cells))];
  return [
    `## Self-test of ${inCell(model)}: ${inWords(verdict)}`, "",
    ...facts.map(([name, text]) => `- ${name}: ${inCell(text)}`), "",
    ...(artifacts.length > 0 ? [...table, ""] : []),
    ...(reasons.length > 0 ? [...reasons.map((each) => `- ${inCell(each)}`), ""] : []),
  ].join("\n");
}
