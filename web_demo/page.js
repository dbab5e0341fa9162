/**
 * The page: a picture in, dropped, chosen, pasted or drawn; the answers of a TF.js artifact out.
 *
 * The newest picture is answered by the artifact and the backend that are chosen; what is overtaken while the model is
 * busy is passed over.
 *
 * @typedef {{name: string, model: string, size_bytes: number, card: import("./predict.js").Card}} Listed
 */

import * as core from "@tensorflow/tfjs-core";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import { loadGraphModel } from "@tensorflow/tfjs-converter";

import { drawOver, element, elementsOf, sentence } from "./answers.js";
import { startDrawing } from "./drawing.js";
import { explain, fetchBeside, imageToRgb, loadArtifact, predict, resize } from "./predict.js";

const tf = { ...core, loadGraphModel };
const SHOWN_LABELS = 5;
const BACKENDS = {
  wasm: async () => {},
  webgl: () => import("@tensorflow/tfjs-backend-webgl"),
  cpu: () => import("@tensorflow/tfjs-backend-cpu"),
};

const byId = (id) => document.getElementById(id);
const [canvas, overlay, answer, headline, artifactSelect, backendSelect] =
  ["canvas", "overlay", "answer", "headline", "artifact-select", "backend-select"].map(byId);

/** @type {Map<string, Listed>} */
const artifacts = new Map();
/** @type {{model: any, listed: Listed, backend: string} | null} */
let loaded = null;
/** @type {{pixels: ImageBitmapSource, name: string} | null} */
let picture = null;
let stale = false;
let busy = false;

function say(text) {
  byId("error").textContent = text;
  byId("error").hidden = text === "";
}

function forget(text) {
  for (const name of ["label", "probability", "backend", "artifact", "source"]) delete answer.dataset[name];
  answer.replaceChildren();
  uncover();
  headline.textContent = text;
  headline.className = "quiet";
  byId("latency").textContent = "";
}

/** Take away what was drawn over the picture, and give the overlay the picture's size. */
function uncover() {
  [overlay.width, overlay.height] = [canvas.width, canvas.height];
}

/** Start the chosen backend and load the chosen artifact into it, where that is not done already. */
async function prepare() {
  const backend = backendSelect.value;
  const listed = artifacts.get(artifactSelect.value);
  if (loaded?.listed === listed && loaded.backend === backend) return loaded;
  loaded?.model.dispose();
  loaded = null;
  await BACKENDS[backend]();
  if (!(await core.setBackend(backend).catch(() => false))) {
    throw new Error(`This browser cannot compute with ${backendSelect.selectedOptions[0].text}. Choose another one.`);
  }
  const model = await loadArtifact(tf, fetchBeside(new URL(listed.model, document.baseURI))).catch((fault) => {
    throw new Error(`The model ${listed.name} could not be loaded: ${fault.message}`);
  });
  const { width, height } = listed.card.resize;
  // The first answer compiles kernels; it should not be a user's.
  await predict(tf, model, { data: new Float32Array(height * width * 3), shape: [1, height, width, 3] });
  loaded = { model, listed, backend };
  return loaded;
}

/** Decode, resize and answer one picture, and show what came out. */
async function respond({ pixels, name }) {
  const { model, listed, backend } = await prepare();
  const original = await imageToRgb(pixels).catch(() => {
    throw new Error(`${name} is not a picture that this browser can read. Try a JPEG or a PNG.`);
  });
  const { data, width, height } = resize(original, listed.card.resize);
  const start = performance.now();
  const answers = await predict(tf, model, { data, shape: [1, height, width, 3] });
  const elapsed_ms = performance.now() - start;
  if (picture === null) return;
  show(answers, listed.card, { width: original.width, height: original.height, resize: listed.card.resize });
  Object.assign(answer.dataset, { backend, artifact: listed.name, source: name });
  byId("latency").textContent = `${elapsed_ms.toFixed(1)} ms for ${name}`;
}

/** Fill the answer with what each head says; the first classification head, else the first one, is the headline. */
function show(answers, card, seen) {
  answer.replaceChildren();
  uncover();
  headline.textContent = headline.className = "";
  const scale = Math.min(canvas.width / seen.width, canvas.height / seen.height);
  const place = {
    left: (canvas.width - seen.width * scale) / 2, top: (canvas.height - seen.height * scale) / 2, scale,
  };
  const outputs = card.outputs.filter((output) => output.name in answers);
  const said = outputs.map((output) => explain(answers[output.name].data, output, seen, SHOWN_LABELS));
  const first = Math.max(0, said.findIndex(({ top }) => top));
  for (const [i, output] of outputs.entries()) {
    if (outputs.length > 1) answer.append(element("h3", "head-name", output.name));
    answer.append(...elementsOf(said[i], output));
  }
  // Masks first, which would cover a box.
  const places = [...outputs.keys()].sort((a, b) => ("box" in said[a]) - ("box" in said[b]));
  for (const i of places) {
    const { name } = outputs[i];
    drawOver(overlay.getContext("2d"), { said: said[i], data: answers[name].data, output: outputs[i] }, seen, place);
  }
  headline.textContent = sentence(said[first], outputs[first].name);
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
        if (picture) await respond(picture);
        else await prepare();
        say("");
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

/** Take a file as the picture, and show it where one draws. */
async function takeFile(file) {
  if (!file) return;
  picture = { pixels: file, name: file.name };
  drawing.show(await createImageBitmap(file).catch(() => null));
  await update();
}

function clear() {
  picture = null;
  drawing.clear();
  update();
}

const drawing = startDrawing(canvas, {
  hint: byId("hint"),
  changed() {
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
  artifactSelect.addEventListener("change", choose);
  backendSelect.addEventListener("change", update);
  document.addEventListener("paste", ({ clipboardData }) => takeFile(clipboardData.files[0]));
  const over = (is) => byId("stage").classList.toggle("over", is);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  document.addEventListener("dragleave", ({ relatedTarget }) => relatedTarget ?? over(false));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    takeFile(event.dataTransfer.files[0]);
  });
}

/** Follow a change of artifact: the drawing area takes the shape of its input. */
function choose() {
  const { card, size_bytes } = artifacts.get(artifactSelect.value);
  const { width, height } = card.resize;
  const size = `${width}\u00a0×\u00a0${height}\u00a0px, ${Math.ceil(size_bytes / 1e3)}\u00a0kB`;
  byId("model-name").textContent = `${card.name}: ${card.backbone.name}, ${size}`;
  if (drawing.shape(card.resize)) picture = null;
  update();
}

async function main() {
  setWasmPaths(new URL(".", document.baseURI).href);
  core.enableProdMode();
  listen();
  try {
    const response = await fetch("models.json");
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    for (const listed of (await response.json()).models) {
      artifacts.set(listed.name, listed);
      artifactSelect.add(new Option(listed.name));
    }
  } catch (fault) {
    forget("No model");
    say(`The list of models could not be loaded (${fault.message}). Start the server again and reload the page.`);
    return;
  }
  choose();
}

main();
