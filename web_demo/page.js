/**
 * The page: a picture in, dropped, chosen, pasted or drawn; the answers of a TF.js artifact out.
 *
 * The newest picture is answered by the artifact and the backend that are chosen; what is overtaken while the model is
 * busy is passed over.
 *
 * Beside the picture there may be columns to fill in, and test pictures that fill them in themselves.
 */

import { drawOver, element, elementsOf, sentence } from "./answers.js";
import { startDrawing } from "./drawing.js";
import { startColumnsForm } from "./columns_form.js";
import { offerComparison } from "./compare_form.js";
import { BACKENDS, held, inTurn, load, startEngine, tf } from "./engine.js";
import { fetched } from "./faults.js";
import { startLoading } from "./loading.js";
import { elementsOfNeighbours, nearestSentence, startNeighbours } from "./nearest.js";
import { workOffline } from "./offline.js";
import { imageToRgb } from "./predict.js";
import { showSamples } from "./samples.js";
import { startSelfTest } from "./self_test.js";
import { startTeaching } from "./teach_door.js";

const SHOWN_LABELS = 5;

/** @type {(id: string) => any} */
const byId = (id) => document.getElementById(id);
const [canvas, overlay, answer, headline, artifactSelect, backendSelect] =
  ["canvas", "overlay", "answer", "headline", "artifact-select", "backend-select"].map(byId);

/** @type {Map<string, import("./engine.js").Listed>} */
const artifacts = new Map();
/** `id`: of what it is among the pictures to compare with. @type {{pixels: ImageBitmapSource, name: string, id?: string} | null} */
let picture = null;
/** What was answered last. @type {import("./nearest.js").Answered | null} */
let answered = null;
let stale = false;
let busy = false;
let headOfAnswer = "";
/** How often something was said or taken back. */
let sayings = 0;
/** @type {ReturnType<import("./camera.js").openCamera> | null} */
let camera = null;

function say(text) {
  sayings += 1;
  byId("error").textContent = text;
  byId("error").hidden = text === "";
}

function forget(text) {
  for (const name of ["label", "probability", "backend", "artifact", "source", "columns"]) delete answer.dataset[name];
  answer.replaceChildren();
  uncover();
  headline.textContent = text;
  headline.className = "quiet";
  answered = null;
  byId("latency").textContent = "";
  teaching.clear();
}

/** Take away what was drawn over the picture, and give the overlay the picture's size. */
function uncover() {
  [overlay.width, overlay.height] = [canvas.width, canvas.height];
}

/** The artifact that is chosen, loaded into the backend that is chosen. */
const prepare = () => load(artifacts.get(artifactSelect.value), backendSelect.value, loading);

/** Decode, resize and answer one picture, and show what came out. */
async function respond(shown) {
  const { pixels, name } = shown;
  const { predictor, listed, backend } = await prepare();
  const original = await imageToRgb(pixels).catch(() => {
    throw new Error(`${name} is not a picture that this browser can read. Try a JPEG or a PNG.`);
  });
  const columns = form.cells();
  const features = teaching.wantsFeatures() && predictor.carriesFeatures;
  const prediction = await predictor.answer(original, { columns, top: SHOWN_LABELS, features });
  if (picture === null) return;
  answered = { picture: shown, answers: prediction.answers };
  show(prediction, listed.card, shown.id);
  teaching.show(prediction);
  Object.assign(answer.dataset, { backend, artifact: listed.name, source: name, columns: JSON.stringify(columns), ...held() });
  byId("latency").textContent = `${prediction.elapsed_ms.toFixed(1)} ms for ${name}`;
}

/**
 * Fill the answer with what each head says; the first classification head, else the first one, is the headline. A picture
 * that is among those to compare with, as `id` says, is not compared with itself.
 */
function show({ answers, said: saidOf, seen }, card, id) {
  answer.replaceChildren();
  uncover();
  headline.textContent = headline.className = "";
  const scale = Math.min(canvas.width / seen.width, canvas.height / seen.height);
  const place = {
    left: (canvas.width - seen.width * scale) / 2, top: (canvas.height - seen.height * scale) / 2, scale,
  };
  const outputs = card.outputs.filter((output) => output.name in answers);
  const said = outputs.map(({ name }) => saidOf[name]);
  const first = Math.max(0, said.findIndex(({ top }) => top));
  headOfAnswer = outputs[first].name;
  const near = new Map();
  for (const [i, { vector }] of said.entries()) if (vector) near.set(i, neighbours.of(outputs[i].name, vector, id));
  for (const [i, output] of outputs.entries()) {
    if (outputs.length > 1) answer.append(element("h3", "head-name", output.name));
    if (near.has(i)) answer.append(...elementsOfNeighbours(near.get(i)));
    answer.append(...elementsOf(said[i], output));
  }
  // Masks first, which would cover a box.
  const places = [...outputs.keys()].sort((a, b) => Number("box" in said[a]) - Number("box" in said[b]));
  for (const i of places) {
    const { name } = outputs[i];
    drawOver(overlay.getContext("2d"), { said: said[i], data: answers[name].data, output: outputs[i] }, seen, place);
  }
  headline.textContent = nearestSentence(near.get(first) ?? []) || sentence(said[first], headOfAnswer);
  const [likeliest] = said[first].top ?? [];
  for (const name of ["label", "probability"]) {
    if (likeliest) answer.dataset[name] = String(likeliest[name]);
    else delete answer.dataset[name];
  }
}

/** Bring the answer up to date with the picture and the choices. */
async function update() {
  stale = true;
  if (busy) return;
  busy = true;
  try {
    while (stale) {
      stale = false;
      answer.setAttribute("aria-busy", "true");
      try {
        const shown = picture;
        const before = sayings;
        await inTurn(async () => void (await (shown ? respond(shown) : prepare())));
        // What another part of the page has said meanwhile is not this answer's to take back.
        if (sayings === before) say("");
        if (!picture) forget("Draw something, or choose a picture.");
      } catch (fault) {
        forget("No answer");
        say(fault.message);
      }
    }
  } finally {
    busy = false;
    answer.removeAttribute("aria-busy");
  }
}

/** Take a file as the picture, with what is known beside it, and show it where one draws; `id` as in `picture`. */
async function takeFile(file, cells, id) {
  if (!file) return;
  camera?.stop();
  if (cells) form.fill(cells);
  picture = { pixels: file, name: file.name, id };
  drawing.show(await createImageBitmap(file).catch(() => null));
  await update();
}

function clear() {
  camera?.stop();
  picture = null;
  drawing.clear();
  update();
}

/** What the camera asks of the page. */
const live = {
  async live(frame) {
    picture = { pixels: frame, name: "the camera" };
    drawing.show(frame);
    await update();
  },
  take: takeFile,
  say,
  changed(on) {
    byId("camera").setAttribute("aria-pressed", String(on));
    byId("camera").textContent = on ? "Camera off" : "Camera";
    // Ten answers a second are too many to be read aloud.
    headline.setAttribute("aria-live", on ? "off" : "polite");
  },
};

/** Let the camera on, fetching what works it at the first time, or off. */
async function toggleCamera() {
  if (camera?.isOn()) {
    camera.stop();
    return;
  }
  try {
    const { openCamera } = await fetched("What works the camera", import("./camera.js"));
    camera ??= openCamera(byId("camera-panel"), byId("camera-note"), live);
  } catch (fault) {
    say(fault.message);
    return;
  }
  await camera.start();
}

const loading = startLoading(byId("loading"));

const form = startColumnsForm(byId("columns"), byId("column-fields"), () => update());

const teaching = startTeaching({
  say, prepare, update, listed: () => artifacts.get(artifactSelect.value), picture: () => picture,
});

const neighbours = startNeighbours(byId("keep"), canvas, () => answered, () => update());

const drawing = startDrawing(canvas, {
  hint: byId("hint"),
  changed() {
    camera?.stop();
    picture = { pixels: canvas, name: "the drawing" };
    update();
  },
});

function listen() {
  byId("clear-canvas").addEventListener("click", clear);
  byId("file-input").addEventListener("change", ({ target }) => {
    takeFile(target.files[0]);
    target.value = "";
  });
  byId("camera").addEventListener("click", toggleCamera);
  artifactSelect.addEventListener("change", choose);
  backendSelect.addEventListener("change", update);
  document.addEventListener("paste", ({ clipboardData }) => takeFile(clipboardData.files[0]));
  const over = (is) => byId("stage").classList.toggle("over", is);
  document.addEventListener("dragover", (event) => {
    // An element that takes drops itself has said so.
    over(!event.defaultPrevented);
    event.preventDefault();
  });
  document.addEventListener("dragleave", ({ relatedTarget }) => relatedTarget ?? over(false));
  document.addEventListener("drop", (event) => {
    over(false);
    if (!event.defaultPrevented) takeFile(event.dataTransfer.files[0]);
    event.preventDefault();
  });
}

/** Follow a change of artifact: the drawing area takes the shape of its input. */
function choose() {
  const { card, size_bytes } = artifacts.get(artifactSelect.value);
  const { width, height } = card.resize;
  const size = `${width}\u00a0×\u00a0${height}\u00a0px, ${Math.ceil(size_bytes / 1e3)}\u00a0kB`;
  byId("model-name").textContent = `${card.name}: ${card.backbone.name}, ${size}`;
  form.shape(card.columns ?? []);
  neighbours.follow(card);
  teaching.follow();
  if (drawing.shape(card.resize)) picture = null;
  return update();
}

/** Offer every backend; those that this browser may lack once they were found. */
function offerBackends() {
  for (const [name, { title, there }] of Object.entries(BACKENDS)) {
    const offer = () => backendSelect.add(new Option(title, name));
    if (there) there().then((found) => found && offer());
    else offer();
  }
}

/** What the comparison of formats takes from the page. */
const compared = {
  picture: () => picture?.pixels ?? null,
  cells: () => form.cells(),
  head: () => headOfAnswer,
  version: tf.version_core,
  inTurn,
  prepare,
};

async function main() {
  startEngine();
  offerBackends();
  listen();
  let listing;
  try {
    const response = await fetch("models.json");
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    listing = await response.json();
    for (const listed of listing.models) {
      artifacts.set(listed.name, listed);
      artifactSelect.add(new Option(listed.name));
    }
    startSelfTest(() => ({ models: listing.models, golden: listing.golden, backend: backendSelect.value }));
  } catch (fault) {
    forget("No model");
    say(`The list of models could not be loaded (${fault.message}). Start the server again and reload the page.`);
    return;
  }
  const ready = choose();
  offerComparison(byId("compare"), listing.others ?? [], compared);
  const { samples } = listing;
  if (samples) {
    await showSamples(byId("samples"), samples, takeFile).then(neighbours.publish).catch((fault) => say(fault.message));
    if (picture) await update();
  }
  await ready;
  workOffline(listing.version);
}

main();
