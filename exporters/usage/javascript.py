"""JavaScript code that answers with an artifact in a browser: TF.js, LiteRT.js or onnxruntime-web."""

from __future__ import annotations

from exporters.contract import BINARY, EMBEDDING, MULTILABEL, ORDINAL, SEGMENTATION, Card
from exporters.usage.parts import NAMED, RANKED, Language, defaults, fill, listed, names_of, quoted

_CODE = """
// «INSTALL»
«IMPORT»

const FOLDER = "«FOLDER»/"; // where the files of this folder are served
«OPEN»
«COLUMNS»

/** A picture as the model takes it, RGB, «WIDTH» x «HEIGHT»; `source`: a file, or anything that can be drawn. */
export async function pixels(source) {
  const bitmap = await createImageBitmap(source, {
    imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none",
  });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    const white = 255 * (255 - rgba[from + 3]) + 127;
    for (let c = 0; c < 3; c++) data[to + c] = Math.floor((rgba[from + c] * rgba[from + 3] + white) / 255);
  }
  return fit({ data, width, height }).data;
}

«FIT»

/** As Pillow does it: the values between the two passes are rounded to 8 bits, so their order shows. */
function stretch(picture, width, height) {
  const lost = picture.height - height;
  const heightFirst = lost > 0 && lost > 2 * (picture.width - width);
  const first = heightFirst ? resample(picture, height, true) : picture;
  return resample(resample(first, width, false), height, true);
}

/** Average one axis by a triangle that widens as the picture shrinks, its weights rounded to 22 bits. */
function resample({ data, width, height }, to, vertical) {
  const [from, lines] = vertical ? [height, width] : [width, height];
  if (from === to) return { data, width, height };
  const [step, lineStep] = vertical ? [width * 3, 3] : [3, width * 3];
  const made = vertical ? { width, height: to } : { width: to, height };
  const [madeStep, madeLineStep] = vertical ? [width * 3, 3] : [3, to * 3];
  const out = new Uint8Array(made.width * made.height * 3);
  const scale = from / to;
  const reach = Math.max(scale, 1);
  for (let i = 0; i < to; i++) {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - reach + 0.5));
    const last = Math.min(from, Math.trunc(center + reach + 0.5));
    const shares = [];
    for (let k = first; k < last; k++) shares.push(Math.max(0, 1 - Math.abs((k - center + 0.5) * (1 / reach))));
    const sum = shares.reduce((total, each) => total + each, 0);
    const weights = shares.map((each) => Math.trunc(0.5 + (each / sum) * 4194304));
    for (let line = 0; line < lines; line++) {
      for (let c = 0; c < 3; c++) {
        let value = 2097152;
        for (let k = first; k < last; k++) value += data[line * lineStep + k * step + c] * weights[k - first];
        out[line * madeLineStep + i * madeStep + c] = Math.min(255, value >> 22);
      }
    }
  }
  return { data: out, ...made };
}

/** Output -> its numbers, a Float32Array. */
export async function numbers(source«PARAMETER») {
  «RUN»
}

/** Output -> what its numbers say. */
export async function answer(source«PARAMETER») {
  const found = await numbers(source«ARGUMENT»);
  return {
    «READ»
  };
}
«LABELS»
"""

_FIT = {
    "stretch": """function fit(picture) {
  return stretch(picture, «WIDTH», «HEIGHT»);
}""",
    "center": """/** The largest box of the model's aspect in the middle. */
function fit({ data, width, height }) {
  const wide = width * «HEIGHT» > height * «WIDTH»;
  const w = wide ? Math.max(1, Math.floor((height * «WIDTH») / «HEIGHT»)) : width;
  const h = wide ? height : Math.max(1, Math.floor((width * «HEIGHT») / «WIDTH»));
  const [left, top] = [Math.floor((width - w) / 2), Math.floor((height - h) / 2)];
  const box = new Uint8Array(w * h * 3);
  for (let row = 0; row < h; row++) {
    const start = ((top + row) * width + left) * 3;
    box.set(data.subarray(start, start + w * 3), row * w * 3);
  }
  return stretch({ data: box, width: w, height: h }, «WIDTH», «HEIGHT»);
}""",
    "pad": """/** The whole picture in the middle of a black one. */
function fit(picture) {
  const wide = picture.width * «HEIGHT» > picture.height * «WIDTH»;
  const w = wide ? «WIDTH» : Math.max(1, Math.floor((picture.width * «HEIGHT») / picture.height));
  const h = wide ? Math.max(1, Math.floor((picture.height * «WIDTH») / picture.width)) : «HEIGHT»;
  const [left, top] = [Math.floor((«WIDTH» - w) / 2), Math.floor((«HEIGHT» - h) / 2)];
  const inner = stretch(picture, w, h).data;
  const data = new Uint8Array(«WIDTH» * «HEIGHT» * 3);
  for (let row = 0; row < h; row++) {
    data.set(inner.subarray(row * w * 3, (row + 1) * w * 3), ((top + row) * «WIDTH» + left) * 3);
  }
  return { data, width: «WIDTH», height: «HEIGHT» };
}""",
}

_LABELS = """
async function labels(name) {
  const response = await fetch(FOLDER + name);
  if (!response.ok) throw new Error(`${name} was not served: ${response.status}`);
  return (await response.text()).split("\\n").slice(0, -1);
}

function ranked(names, probabilities) {
  return names.map((name, i) => [name, probabilities[i]]).sort((a, b) => b[1] - a[1]);
}"""

_CLASSES = """
/** The likeliest class of each place, row by row. */
function classes(probabilities, count) {
  return Array.from({ length: probabilities.length / count }, (_, place) => {
    const here = probabilities.subarray(place * count, (place + 1) * count);
    return here.indexOf(Math.max(...here));
  });
}"""

_READ = {
    RANKED: "ranked(await labels(«FILE»), found[«NAME»])",
    BINARY: "ranked(await labels(«FILE»), [1 - found[«NAME»][0], found[«NAME»][0]])",
    MULTILABEL: "ranked(await labels(«FILE»), found[«NAME»]).filter((each) => each[1] > 0.5)",
    ORDINAL: "(await labels(«FILE»))[found[«NAME»].filter((each) => each > 0.5).length]",
    NAMED: "Object.fromEntries([«NAMES»].map((name, i) => [name, found[«NAME»][i]]))",
    EMBEDDING: "found[«NAME»]",
    SEGMENTATION: "classes(found[«NAME»], «COUNT»)",
}

_TFJS = {
    "INSTALL": "npm install @tensorflow/tfjs-core @tensorflow/tfjs-backend-wasm «LOADER»\n"
    "// and serve node_modules/@tensorflow/tfjs-backend-wasm/dist/*.wasm as wasm/",
    "IMPORT": """import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { «LOAD» } from "«LOADER»";""",
    "OPEN": """setWasmPaths("wasm/");
await tf.setBackend("wasm");
const model = await «LOAD»(FOLDER + "model.json");""",
}
_TFLITE = {
    "INSTALL": "npm install @litertjs/core\n// and serve node_modules/@litertjs/core/wasm/* as wasm/",
    "IMPORT": 'import { Tensor, loadAndCompile, loadLiteRt } from "@litertjs/core";',
    "OPEN": """await loadLiteRt("wasm/", { threads: false });
const model = await loadAndCompile(FOLDER + "model.tflite", { accelerator: "wasm" });
const signature = model.signatures["serving_default"];""",
}
_ONNX = {
    "INSTALL": "npm install onnxruntime-web\n// and serve node_modules/onnxruntime-web/dist/*.{mjs,wasm} as wasm/",
    "IMPORT": 'import * as ort from "onnxruntime-web/wasm";',
    "OPEN": """ort.env.wasm.wasmPaths = new URL("wasm/", location.href).href;
const session = await ort.InferenceSession.create(FOLDER + "model.onnx");""",
}
_LOADERS = {
    "tfjs": {"LOAD": "loadGraphModel", "LOADER": "@tensorflow/tfjs-converter"},
    "tfjs_layers": {"LOAD": "loadLayersModel", "LOADER": "@tensorflow/tfjs-layers"},
}


def _columns(card: Card) -> str:
    lines = "".join(f"  {number}, // {name}\n" for number, name in defaults(card))
    return f"// What stands for an unknown value, column by column\nconst UNKNOWN = [\n{lines}];"


def _lines(*run: str) -> str:
    return "\n".join(["const data = await pixels(source);", *run])


def _shape(card: Card) -> str:
    return f"[1, {card.resize.height}, {card.resize.width}, 3]"


def _tensors(card: Card) -> list[str]:
    columns = [f"const beside = tf.tensor2d(columns, [1, {len(card.columns)}]);"] if card.columns else []
    return [f"const image = tf.tensor4d(Float32Array.from(data), {_shape(card)});", *columns]


def _run_graph(card: Card) -> str:
    beside = ", columns: beside" if card.columns else ""
    return _lines(
        *_tensors(card),
        f"const answers = model.predict({{ image{beside} }});",
        "const found = {};",
        f"for (const name of [{listed(names_of(card))}]) found[name] = await answers[name].data();",
        f"tf.dispose([image, {'beside, ' if card.columns else ''}...Object.values(answers)]);",
        "return found;",
    )


def _run_layers(card: Card) -> str:
    beside = ", columns: beside" if card.columns else ""
    return _lines(
        *_tensors(card),
        f"const inputs = {{ image{beside} }};",
        "const answers = [model.predict(model.inputNames.map((name) => inputs[name]))].flat();",
        "const found = {};",
        "for (const [i, name] of model.outputNames.entries()) found[name] = await answers[i].data();",
        "tf.dispose([...Object.values(inputs), ...answers]);",
        "return found;",
    )


def _run_onnx(card: Card) -> str:
    columns = [f'feeds.columns = new ort.Tensor("float32", Float32Array.from(columns), [1, {len(card.columns)}]);']
    return _lines(
        f'const feeds = {{ image: new ort.Tensor("float32", Float32Array.from(data), {_shape(card)}) }};',
        *(columns if card.columns else []),
        f"const answers = await session.run(feeds, [{listed(names_of(card))}]);",
        "return Object.fromEntries(Object.entries(answers).map(([name, { data: values }]) => [name, values]));",
    )


def _run_tflite(card: Card) -> str:
    values = "data" if card.input_dtype == "uint8" else "Float32Array.from(data)"
    columns = [f"feeds.columns = new Tensor(Float32Array.from(columns), [1, {len(card.columns)}]);"]
    integers = sorted(output.name for output in card.outputs if output.dtype != "float32")
    shares = [
        "// Probabilities in steps of 1/256, as TFLite fixes them.",
        f"for (const name of [{listed(integers)}]) found[name] = Float32Array.from(found[name], (each) => each / 256);",
    ]
    return _lines(
        f"const feeds = {{ image: new Tensor({values}, {_shape(card)}) }};",
        *(columns if card.columns else []),
        "const answers = await signature.run(feeds);",
        "const found = {};",
        f"for (const name of [{listed(names_of(card))}]) found[name] = answers[name].toTypedArray().slice();",
        "for (const tensor of [...Object.values(feeds), ...Object.values(answers)]) tensor.delete();",
        *(shares if integers else []),
        "return found;",
    )


JAVASCRIPT = Language(
    template=_CODE,
    fits=_FIT,
    labels=_LABELS,
    classes=_CLASSES,
    reads=_READ,
    entry="«NAME»: «READ»",
    runtimes={
        "tflite": _TFLITE,
        "onnx": _ONNX,
        **{name: {key: fill(each, loader) for key, each in _TFJS.items()} for name, loader in _LOADERS.items()},
    },
    runs={"tflite": _run_tflite, "onnx": _run_onnx, "tfjs": _run_graph, "tfjs_layers": _run_layers},
    columns=_columns,
    beside=(", columns = UNKNOWN", ", columns"),
    literal=quoted,
    one_at_a_time=frozenset({"tflite"}),
)
