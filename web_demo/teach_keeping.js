/** Keeping what was taught: in this browser under a name, and as a file. */

import { PATTERNS, fromFile, pattern, toFile } from "./teach_file.js";
import { probabilitiesOf } from "./teach_head.js";
import * as store from "./teach_store.js";

/** @type {(id: string) => any} */
const byId = (id) => document.getElementById(id);

/**
 * Let the fields for saving, opening and downloading work.
 *
 * @param {object} teaching
 * @param {() => {classes: object[], head: object | null, told: object | null, stale: boolean}} teaching.state
 * @param {(kept: object) => void} teaching.restore
 * @param {(text: string) => void} teaching.tell
 * @param {(text: string) => void} teaching.failed
 * @param {(shown: object[]) => Promise<{listed: import("./engine.js").Listed, backend: string}>} teaching.look
 * @param {() => import("./engine.js").Listed} teaching.listed
 * @returns {{list: () => Promise<void>}}  shows what is kept for the model that is loaded
 */
export function startKeeping({ state, restore, tell, failed, look, listed }) {
  const from = () => listed().card.created_from;
  const named = () => byId("teach-name").value.trim() || "My classes";
  const chosen = () => ({ from: from(), name: byId("teach-saved").value });
  const doing = (work) => async () => {
    try {
      await work();
    } catch (fault) {
      failed(fault.message);
    }
  };

  async function list(select = "") {
    const names = await store.names(from());
    byId("teach-saved").replaceChildren(...names.map((name) => new Option(name, name, false, name === select)));
    for (const id of ["teach-saved", "teach-open", "teach-delete"]) byId(id).disabled = names.length === 0;
  }

  async function save() {
    const { classes, head, told, stale } = state();
    if (classes.length === 0) throw new Error("There is nothing to save yet. Add a class first.");
    const kept = classes.map(({ name, pictures }) => ({
      name, pictures: pictures.map(({ picture, heldOut }) => ({ picture, heldOut })),
    }));
    await store.keep({ from: from(), name: named(), classes: kept, head, told, stale });
    await list(named());
    tell(`${named()} is saved in this browser.`);
  }

  async function open() {
    const key = chosen();
    const kept = await store.find(key);
    if (!kept) throw new Error(`${key.name} is no longer there. Choose another one.`);
    restore(kept);
    byId("teach-name").value = key.name;
    tell(`${key.name} is open.`);
  }

  async function remove() {
    const key = chosen();
    await store.forget(key);
    await list();
    tell(`${key.name} is deleted from this browser.`);
  }

  async function download() {
    const { classes, head, told, stale } = state();
    if (!head) throw new Error("There is nothing to download yet. Train first.");
    if (stale) throw new Error("The pictures have changed since the training. Train again before you download.");
    const patterns = Array.from({ length: PATTERNS }, (_, i) => {
      const { width, height } = listed().card.resize;
      return { picture: pattern(i, width, height), features: null, of: "" };
    });
    const pictures = byId("teach-with-pictures").checked ? classes.flatMap((each) => each.pictures) : [];
    const by = await look([...patterns, ...pictures]);
    const labels = classes.map(({ name }) => name);
    const shown = classes.flatMap(({ pictures: mine }, label) => mine.filter((each) => pictures.includes(each)).map(
      ({ picture, heldOut, features }) => ({ label, heldOut, picture, probabilities: probabilitiesOf(head, features) })));
    const features = patterns.map((each) => each.features);
    const seen = { features, probabilities: features.map((each) => probabilitiesOf(head, each)) };
    const file = await toFile({ name: named(), labels, head, told, shown }, by.listed, by.backend, seen);
    hand(file, `${named().replace(/[^\p{L}\p{N}]+/gu, "-").toLowerCase()}.cutpoint.json`);
    tell(`Downloaded. Next: cutpoint import FILE --from FOLDER`);
  }

  async function openFile(file) {
    const { name, labels, head, told, shown } = await fromFile(file, listed().card);
    const classes = labels.map((label, i) => ({ name: label, pictures: shown.filter((each) => each.label === i) }));
    restore({ classes, head, told, stale: false });
    byId("teach-name").value = name;
    tell(`${file.name} is open${shown.length === 0 ? "; it holds no pictures, so it answers, and cannot be trained further" : ""}.`);
  }

  for (const [id, work] of Object.entries({ save, open, delete: remove, download })) {
    byId(`teach-${id}`).addEventListener("click", doing(work));
  }
  byId("teach-open-file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    target.value = "";
    if (file) doing(() => openFile(file))();
  });
  return { list: doing(() => list()) };
}

/** Give a file to the user, as a download. */
function hand(file, name) {
  const address = URL.createObjectURL(file);
  Object.assign(document.createElement("a"), { href: address, download: name }).click();
  // The download reads from the address after this.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
