/** The part of the page that compares formats: which artifacts there are to choose, and a button that fetches the rest. */

import { fetched } from "./faults.js";

/**
 * @typedef {import("./compare.js").Other} Other
 * @typedef {{picture: () => ImageBitmapSource | null, cells: () => import("./columns.js").Cells, head: () => string,
 *   version: string, inTurn: <T>(task: () => Promise<T>) => Promise<T>,
 *   prepare: () => Promise<import("./engine.js").Loaded>}} Host  what the page shows now, and how TF.js answers it
 */

/**
 * Offer the comparison where there is something to compare.
 *
 * @param {HTMLElement} section  hidden while there is nothing
 * @param {Other[]} others  what models.json lists beside the TF.js models
 * @param {Host} host
 */
export function offerComparison(section, others, host) {
  /** @type {(name: string) => any} */
  const inside = (name) => section.querySelector(`[data-testid="compare-${name}"]`);
  const [button, said, error, table] = ["start", "said", "error", "table"].map(inside);
  const selects = ["tflite", "onnx"].map((format) => {
    const select = inside(format);
    const names = others.filter((each) => each.format === format).map(({ name }) => name);
    select.replaceChildren(...names.map((name) => new Option(name)));
    select.parentElement.hidden = names.length === 0;
    return select;
  });
  section.hidden = others.length === 0;

  async function start() {
    button.disabled = true;
    error.hidden = true;
    table.hidden = true;
    try {
      const picture = host.picture();
      if (!picture) throw new Error("There is no picture to compare by. Draw something, or choose a picture.");
      const chosen = selects.flatMap(({ value }) => others.filter(({ name }) => name === value));
      said.textContent = "Fetching the models and their libraries, which takes a while the first time…";
      const { compare, showRows } = await fetched("What compares", import("./compare.js"));
      const rows = await compare({ ...host, picture, cells: host.cells(), others: chosen });
      showRows(table.tBodies[0], rows, host.head());
      table.hidden = false;
      said.textContent = "Each has answered the same picture. Differences are the largest of any value from the first row.";
    } catch (fault) {
      said.textContent = "";
      error.textContent = fault.message;
      error.hidden = false;
    } finally {
      button.disabled = false;
    }
  }
  button.addEventListener("click", start);
}
