/** The self-test as a person sees it: progress, a verdict, a table, and the result to take away. */

import { element } from "../answers.js";
import { BACKENDS } from "../engine.js";
import { HEADINGS, WORDS, inWords, rowsOf, toMarkdown, verdictSentence } from "./report.js";
import { runSelfTest } from "./run.js";

/** @type {(id: string) => any} */
const byId = (id) => document.getElementById(`self-test-${id}`);
const [progress, bar, progressText, verdict, results, reasonList, error, cancel, exports, note] =
  ["progress", "bar", "progress-text", "verdict", "results", "reasons", "error", "cancel", "exports", "note"].map(byId);

/** @type {{result: import("./run.js").Result, backend: string} | null} */
let last = null;

function say(text, share) {
  bar.value = share;
  progressText.textContent = text;
}

function reset() {
  last = null;
  delete verdict.dataset.verdict;
  verdict.textContent = error.textContent = note.textContent = "";
  results.replaceChildren();
  reasonList.replaceChildren();
  for (const each of [results, reasonList, exports, error, verdict]) each.hidden = true;
}

/**
 * Run the self-test and show what it finds.
 *
 * @param {{models: import("../engine.js").Listed[], golden: string | undefined, backend: string}} asked
 */
export async function run(asked) {
  reset();
  const stop = new AbortController();
  const stopping = () => stop.abort();
  cancel.addEventListener("click", stopping);
  progress.hidden = cancel.hidden = false;
  try {
    const result = await runSelfTest({ ...asked, say, signal: stop.signal });
    last = { result, backend: asked.backend };
    show(result, asked.backend);
  } catch (fault) {
    conclude("not_verified", stop.signal.aborted ? "Not verified: the self-test was cancelled." : "Not verified.");
    if (!stop.signal.aborted) {
      error.textContent = fault.message;
      error.hidden = false;
    }
  } finally {
    cancel.removeEventListener("click", stopping);
    // Whoever pressed a button that goes away is led back to the one that stays.
    if (document.activeElement === cancel) document.getElementById("self-test").focus();
    progress.hidden = cancel.hidden = true;
  }
}

function conclude(status, sentence) {
  verdict.hidden = false;
  verdict.textContent = sentence;
  verdict.dataset.verdict = status.replaceAll("_", "-");
}

function show(result, backend) {
  const rows = rowsOf(result);
  const caption = `With ${BACKENDS[backend].title}, in ${result.device.browser}`;
  if (rows.length > 0) results.replaceChildren(tableOf(rows, caption));
  reasonList.replaceChildren(...result.reasons.map((each) => element("li", "", each)));
  results.hidden = rows.length === 0;
  // A single reason is in the verdict already.
  reasonList.hidden = result.reasons.length < 2;
  exports.hidden = false;
  conclude(result.verdict, verdictSentence(result, backend));
}

function tableOf(rows, caption) {
  const head = element("tr", "", ...HEADINGS.map((text, i) => {
    const cell = element("th", i < WORDS ? "" : "number", text);
    cell.scope = "col";
    return cell;
  }));
  const body = rows.map(({ status, cells }) => element("tr", status, ...cells.map((text, i) => {
    const cell = element(i === 0 ? "th" : "td", i < WORDS ? "" : "number", text);
    if (i === 0) cell.scope = "row";
    if (text === inWords(status)) cell.classList.add("status");
    return cell;
  })));
  const parts = [element("caption", "", caption), element("thead", "", head), element("tbody", "", ...body)];
  return element("table", "", ...parts);
}

/** Offer the last result as a file. */
export function download() {
  const { result, backend } = last;
  const text = `${JSON.stringify(result, null, 1)}\n`;
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const name = result.model.replace(/[^\w.-]+/g, "_") || "model";
  Object.assign(document.createElement("a"), { href: address, download: `self-test-${name}-${backend}.json` }).click();
  // The browser still reads it after the click.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Put the last result into the clipboard as Markdown; where the page may not, show it to be copied by hand. */
export async function copy() {
  const text = toMarkdown(last.result, last.backend);
  try {
    await navigator.clipboard.writeText(text);
    note.textContent = "Copied as Markdown.";
  } catch {
    const area = Object.assign(element("textarea", "", text), { readOnly: true, rows: 8 });
    area.setAttribute("aria-label", "The result as Markdown");
    note.replaceChildren("This browser does not let the page write to the clipboard. Copy this text:", area);
    area.select();
  }
}
