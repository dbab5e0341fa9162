/**
 * Teaching: classes of one's own, pictures for each, a head on the features of the model that is loaded.
 *
 * The pictures are kept as the model takes them, in this browser; features are computed when they are needed.
 *
 * @typedef {{picture: import("./pixels.js").Picture, features: Float32Array | null, of: string, heldOut: boolean}} Shown
 *   `of`: the artifact and the backend that the features are of
 * @typedef {{name: string, pictures: Shown[], elements: ReturnType<typeof classElements>}} Class
 * @typedef {{addClass: () => void, train: () => Promise<void>, listKept: () => Promise<void>, hasHead: () => boolean,
 *   show: (prediction: import("./predict.js").Prediction) => void, clear: () => void, follow: () => void}} Part
 */

import { element, elementsOf, percent } from "./answers.js";
import { topLabels } from "./explain.js";
import { imageToRgb, resize } from "./pixels.js";
import { LEAST_PICTURES, averaged, probabilitiesOf } from "./teach_head.js";
import { startKeeping } from "./teach_keeping.js";
import { lacking, learn, look } from "./teach_training.js";
import { classElements, counted } from "./teach_view.js";

const SHOWN_LABELS = 5;
/** @type {(id: string) => any} */
const byId = (id) => document.getElementById(id);

/** @type {import("./teach_door.js").Page} */
let page;
/** @type {Class[]} */
let classes = [];
/** @type {import("./teach_head.js").Head | null} */
let head = null;
/** What is said of the training; `stale`: pictures have changed since. */
let told = null;
let stale = false;
let of = "";
let keeping;
let complained = false;

/**
 * Take teaching over.
 *
 * @param {import("./teach_door.js").Page} given
 * @returns {Part}
 */
export function openTeaching(given) {
  page = given;
  of = page.listed().card.created_from;
  keeping = startKeeping({ state, restore, tell, failed, look: (shown) => look(page, shown), listed: page.listed });
  return { addClass, train, listKept: keeping.list, hasHead: () => head !== null, show, clear, follow };
}

/** Say how things stand; a failure is said as the page's error too. */
function tell(text, isFault = false) {
  byId("teach-status").textContent = text;
  byId("teach-status").classList.toggle("fault", isFault);
  if (isFault || complained) page.say(isFault ? text : "");
  complained = isFault;
}

const failed = (text) => tell(text, true);

/** What was taught so far, for those who keep it. */
const state = () => ({ classes, head, told, stale });

/** Take another state, as a file or this browser kept it. */
function restore(kept) {
  for (const { elements } of classes) elements.box.remove();
  classes = [];
  for (const { name, pictures } of kept.classes) {
    const made = makeClass(name);
    made.pictures = pictures.map(({ picture, heldOut }) => ({ picture, features: null, of: "", heldOut }));
    made.elements.draw(made.pictures);
  }
  ({ head, told, stale } = kept);
  showAccuracy();
  page.update();
}

function makeClass(name) {
  const made = { name, pictures: [], elements: null };
  const index = () => classes.indexOf(made);
  made.elements = classElements({
    renamed(text) {
      made.name = text.trim();
      page.update();
    },
    given: (files) => addFiles(made, files),
    take: () => takeCurrent(made),
    remove: () => removeClass(index()),
    dropPicture(shown) {
      made.pictures = made.pictures.filter((each) => each !== shown);
      changed(made);
    },
  });
  made.elements.name.value = name;
  made.elements.draw([]);
  classes.push(made);
  byId("teach-classes").append(made.elements.box);
  renumber();
  return made;
}

const renumber = () => classes.forEach(({ elements }, i) => elements.number(i));

function addClass() {
  const taken = new Set(classes.map(({ name }) => name));
  let number = classes.length + 1;
  while (taken.has(`Class ${number}`)) number += 1;
  const { elements } = makeClass(`Class ${number}`);
  forgetHead();
  elements.name.focus();
  elements.name.select();
  tell(`Class ${classes.length} added. Name it and give it at least ${counted(LEAST_PICTURES)}.`);
}

function removeClass(index) {
  const [{ elements, name }] = classes.splice(index, 1);
  elements.box.remove();
  renumber();
  forgetHead();
  byId("teach-add-class").focus();
  tell(`${name} removed.`);
}

/** A head of other classes answers nothing that is asked any more. */
function forgetHead() {
  head = told = null;
  stale = false;
  showAccuracy();
  clear();
}

/** Show that the pictures of a class are others now. */
function changed(taught) {
  taught.elements.draw(taught.pictures);
  stale = head !== null;
  showAccuracy();
}

async function addFiles(taught, files) {
  const faults = [];
  let added = 0;
  for (const [i, file] of files.entries()) {
    tell(`Reading picture ${i + 1} of ${files.length}`);
    try {
      await add(taught, file, file.name);
      added += 1;
    } catch (fault) {
      faults.push(fault.message);
    }
  }
  const said = `${counted(added)} added to ${taught.name}, which has ${taught.pictures.length}.`;
  if (faults.length === 0) return tell(said);
  const others = faults.length > 1 ? ` So it is with ${counted(faults.length - 1, "other file")}.` : "";
  failed(`${faults[0]}${others} ${added > 0 ? said : ""}`.trim());
}

async function takeCurrent(taught) {
  const current = page.picture();
  if (!current) return failed("There is no picture above. Draw something or choose a picture first.");
  try {
    await add(taught, current.pixels, current.name);
    tell(`${current.name} added to ${taught.name}, which has ${taught.pictures.length}.`);
  } catch (fault) {
    failed(fault.message);
  }
}

/** Add one picture as the model takes it; one that is there already teaches nothing, and would be on both sides of the test. */
async function add(taught, source, name) {
  const decoded = await imageToRgb(source).catch(() => {
    throw new Error(`${name} is not a picture that this browser can read. Try a JPEG or a PNG.`);
  });
  const picture = resize(decoded, page.listed().card.resize);
  const same = ({ picture: { data } }) => data.every((value, i) => value === picture.data[i]);
  const where = classes.find(({ pictures }) => pictures.some(same));
  if (where) throw new Error(`${name} is in ${where.name} already. Add another picture.`);
  taught.pictures.push({ picture, features: null, of: "", heldOut: false });
  changed(taught);
}

/**
 * Add a picture to a class, for other parts of the page.
 *
 * @param {number} classIndex  counting from 0, as `data-class` does
 * @param {Blob | ImageBitmapSource} source
 * @param {string} [name]  what messages call it
 * @throws {Error} where there is no such class, the picture cannot be read, or it is there already
 */
export async function addPicture(classIndex, source, name = "The picture") {
  if (!classes[classIndex]) throw new Error("There is no such class. Add a class first.");
  await add(classes[classIndex], source, name);
}

function disable(is) {
  for (const { elements } of classes) /** @type {any} */ (elements.box).disabled = is;
  for (const id of ["teach-add-class", "teach-kept-fields"]) byId(id).disabled = is;
  // A button that is disabled loses the focus.
  byId("teach-train").setAttribute("aria-disabled", String(is));
  byId("teach-progress").hidden = !is;
}

const busy = () => byId("teach-train").getAttribute("aria-disabled") === "true";

async function train() {
  if (busy()) return;
  const why = lacking(classes);
  if (why) return failed(why);
  disable(true);
  const started = performance.now();
  try {
    ({ head, told } = await learn(page, classes, (text, share) => {
      if (byId("teach-status").textContent !== text) tell(text);
      byId("teach-progress").value = share;
    }));
    stale = false;
    showAccuracy();
    tell(`Trained in ${((performance.now() - started) / 1000).toFixed(1)} s on this device.`);
    await page.update();
  } catch (fault) {
    failed(fault.message);
  } finally {
    disable(false);
  }
}

function showAccuracy() {
  const line = byId("teach-accuracy");
  line.hidden = told === null;
  for (const name of ["accuracy", "count", "stale"]) delete line.dataset[name];
  if (told === null) return line.replaceChildren();
  const count = told.held_out.reduce((sum, each) => sum + each, 0);
  const learned = told.pictures.reduce((sum, each) => sum + each, 0);
  Object.assign(line.dataset, { accuracy: String(told.correct / count), count: String(count), stale: String(stale) });
  const again = stale ? " The pictures have changed since: train again." : "";
  line.textContent = `${percent(told.correct / count)} right: ${told.correct} of ${counted(count)} held out, `
    + `${learned} to learn from.${again}`;
}

function show({ answers }) {
  if (!head || !answers.features) return;
  const features = averaged(answers.features);
  if (features.length !== head.width) {
    forgetHead();
    return failed("What was opened was taught on other features. Train again.");
  }
  const labels = classes.map(({ name }) => name);
  const top = topLabels(probabilitiesOf(head, features), labels, SHOWN_LABELS);
  const box = byId("teach-answer");
  box.replaceChildren(element("h3", "head-name", "Your classes"), ...elementsOf({ top }, /** @type {any} */ ({ labels })));
  Object.assign(box.dataset, { label: top[0].label, probability: String(top[0].probability) });
  box.hidden = false;
}

function clear() {
  const box = byId("teach-answer");
  box.hidden = true;
  box.replaceChildren();
  for (const name of ["label", "probability"]) delete box.dataset[name];
}

/** Another artifact was chosen: pictures of another size, and a head of another network, are of no use to it. */
function follow() {
  const { created_from: from } = page.listed().card;
  if (from === of) return;
  of = from;
  restore({ classes: [], head: null, told: null, stale: false });
  clear();
  keeping.list();
}
