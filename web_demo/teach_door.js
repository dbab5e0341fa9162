/** The way into teaching: what does it is fetched when somebody first presses something in its section. */

/**
 * What teaching asks of the page.
 *
 * @typedef {object} Page
 * @property {(text: string) => void} say  shows a sentence as the page's error, or takes it away where it is empty
 * @property {() => Promise<import("./engine.js").Loaded>} prepare  the chosen artifact, loaded; to be called in turn
 * @property {() => Promise<void>} update  answers the current picture again
 * @property {() => import("./engine.js").Listed | undefined} listed  the chosen artifact
 * @property {() => {pixels: ImageBitmapSource, name: string} | null} picture  the current one
 *
 * @typedef {object} Teaching
 * @property {() => boolean} wantsFeatures  whether `show` needs the features of the current picture
 * @property {(prediction: import("./predict.js").Prediction) => void} show  shows the taught answer beside the model's own
 * @property {() => void} clear  takes that answer away
 * @property {() => void} follow  is told that another artifact was chosen
 */

/** @type {(id: string) => any} */
const byId = (id) => document.getElementById(id);

/**
 * Let the section of the page wake up when it is used.
 *
 * @param {Page} page
 * @returns {Teaching}
 */
export function startTeaching(page) {
  /** @type {import("./teach.js").Part | null} */
  let part = null;
  let opening = null;

  async function open() {
    opening ??= import("./teach.js").then(({ openTeaching }) => openTeaching(page));
    try {
      part = await opening;
    } catch (fault) {
      opening = null;
      page.say(`What teaches could not be loaded (${fault.message}). Check the connection and press again.`);
    }
    return part;
  }

  const pressed = (id, work) => byId(id).addEventListener("click", async () => work((await open()) ?? {}));
  pressed("teach-add-class", ({ addClass }) => addClass?.());
  pressed("teach-train", ({ train }) => train?.());
  byId("teach-kept").addEventListener("toggle", async ({ target }) => {
    if (!target.open) return;
    const opened = await open();
    // Until then nobody would take what is chosen there.
    if (opened) byId("teach-kept-fields").disabled = false;
    opened?.listKept();
  });

  return {
    wantsFeatures: () => part?.hasHead() ?? false,
    show: (prediction) => part?.show(prediction),
    clear: () => part?.clear(),
    follow() {
      const able = (page.listed()?.card.cut ?? []).length > 0;
      byId("teach-controls").hidden = !able;
      byId("teach-unable").hidden = able;
      part?.follow();
    },
  };
}
