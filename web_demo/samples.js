/** The test pictures that the owner of a model publishes, as buttons: a press takes one as the picture, with its columns. */

import { element } from "./answers.js";

/**
 * Show the published test pictures.
 *
 * @param {HTMLElement} strip  hidden while there are none
 * @param {string} address  of `expected.json`; the pictures are beside it
 * @param {(file: File, cells: import("./columns.js").Cells, name: string) => void} take  called with the one that is pressed
 * @returns {Promise<import("./nearest.js").Known[]>}  what the Keras model says of each
 */
export async function showSamples(strip, address, take) {
  const list = new URL(address, document.baseURI);
  const response = await fetch(list);
  if (!response.ok) throw new Error(`The test pictures were not served: ${response.status} ${response.statusText}`);
  const { files } = await response.json();
  strip.replaceChildren(...files.map(({ file, columns }, i) => {
    const picture = Object.assign(new Image(), { loading: "lazy", src: new URL(file, list), alt: `Test picture ${i + 1}` });
    const button = Object.assign(element("button", "sample", picture), { type: "button" });
    button.dataset.testid = `sample-${file}`;
    button.addEventListener("click", async () => {
      const bytes = await fetch(new URL(file, list)).then((answer) => answer.blob());
      take(new File([bytes], file), columns ?? {}, file);
    });
    return button;
  }));
  strip.hidden = files.length === 0;
  return files.map(({ file, outputs }, i) => {
    return { id: file, title: `test picture ${i + 1}`, address: new URL(file, list).href, vectors: outputs ?? {} };
  });
}
