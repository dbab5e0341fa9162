"""Python code that answers with a TFLite or an ONNX artifact."""

from __future__ import annotations

from exporters.contract import BINARY, EMBEDDING, MULTILABEL, ORDINAL, SEGMENTATION, Card
from exporters.usage.parts import NAMED, RANKED, Language, defaults, listed, names_of, quoted

_CODE = '''
# «INSTALL»
from pathlib import Path

import numpy as np
«IMPORT»
from PIL import Image, ImageOps

FOLDER = Path(__file__).parent  # of «FILE» and the labels
«OPEN»
«COLUMNS»


def pixels(path):
    """A picture as the model takes it: uint8 («HEIGHT», «WIDTH», 3)."""
    rgba = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGBA"), np.uint32)
    color, alpha = rgba[..., :3], rgba[..., 3:]
    picture = Image.fromarray(((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8))
    «FIT»


def numbers(path«PARAMETER»):
    """Output -> its numbers, float32."""
    «RUN»


«LABELS»
def answer(path«PARAMETER»):
    """Output -> what its numbers say."""
    found = numbers(path«ARGUMENT»)
    return {
        «READ»
    }


if __name__ == "__main__":
    print(answer("picture.jpg"))
'''

_FITS = {
    "stretch": "return np.asarray(picture.resize((«WIDTH», «HEIGHT»), Image.Resampling.BILINEAR))",
    "center": """width, height = picture.size
if width * «HEIGHT» > height * «WIDTH»:
    box = max(1, height * «WIDTH» // «HEIGHT»), height
else:
    box = width, max(1, width * «HEIGHT» // «WIDTH»)
left, top = (width - box[0]) // 2, (height - box[1]) // 2
picture = picture.crop((left, top, left + box[0], top + box[1]))
return np.asarray(picture.resize((«WIDTH», «HEIGHT»), Image.Resampling.BILINEAR))""",
    "pad": """width, height = picture.size
if width * «HEIGHT» > height * «WIDTH»:
    box = «WIDTH», max(1, height * «WIDTH» // width)
else:
    box = max(1, width * «HEIGHT» // height), «HEIGHT»
black = Image.new("RGB", («WIDTH», «HEIGHT»))
black.paste(picture.resize(box, Image.Resampling.BILINEAR), ((«WIDTH» - box[0]) // 2, («HEIGHT» - box[1]) // 2))
return np.asarray(black)""",
}

_LABELS = """def labels(name):
    return (FOLDER / name).read_text(encoding="utf-8").split("\\n")[:-1]


def ranked(names, probabilities):
    return sorted(zip(names, map(float, probabilities)), key=lambda each: -each[1])

"""

_READ = {
    RANKED: "ranked(labels(«FILE»), found[«NAME»])",
    BINARY: "ranked(labels(«FILE»), (1 - found[«NAME»][0], found[«NAME»][0]))",
    MULTILABEL: "[each for each in ranked(labels(«FILE»), found[«NAME»]) if each[1] > 0.5]",
    ORDINAL: "labels(«FILE»)[int((found[«NAME»] > 0.5).sum())]",
    NAMED: "dict(zip((«NAMES»,), map(float, found[«NAME»].ravel())))",
    EMBEDDING: "found[«NAME»]",
    SEGMENTATION: "found[«NAME»].argmax(-1)",
}

_TFLITE = {
    "INSTALL": "pip install ai-edge-litert numpy pillow",
    "IMPORT": "from ai_edge_litert.interpreter import Interpreter",
    "FILE": "model.tflite",
    "OPEN": 'INTERPRETER = Interpreter(str(FOLDER / "model.tflite"))\n'
    'RUN = INTERPRETER.get_signature_runner("serving_default")',
}
_ONNX = {
    "INSTALL": "pip install onnxruntime numpy pillow",
    "IMPORT": "import onnxruntime",
    "FILE": "model.onnx",
    "OPEN": 'SESSION = onnxruntime.InferenceSession(str(FOLDER / "model.onnx"), providers=["CPUExecutionProvider"])',
}


def _columns(card: Card) -> str:
    lines = "".join(f"    {number},  # {name}\n" for number, name in defaults(card))
    return f"# What stands for an unknown value, column by column\nUNKNOWN = (\n{lines})"


def _image(card: Card) -> str:
    return "pixels(path)[np.newaxis]" + ("" if card.input_dtype == "uint8" else ".astype(np.float32)")


def _run_tflite(card: Card) -> str:
    columns = ", columns=np.array([columns], np.float32)" if card.columns else ""
    lines = [f"found = RUN(image={_image(card)}{columns})"]
    integers = [output.name for output in card.outputs if output.dtype != "float32"]
    if integers:
        lines += [
            f"for name in ({listed(sorted(integers))},):",
            '    scale, zero_point = RUN.get_output_details()[name]["quantization"]',
            "    found[name] = (found[name].astype(np.float32) - zero_point) * scale",
        ]
    names = listed(names_of(card))
    return "\n".join([*lines, f"return {{name: found[name][0] for name in ({names},)}}"])


def _run_onnx(card: Card) -> str:
    columns = ', "columns": np.array([columns], np.float32)' if card.columns else ""
    names = listed(names_of(card))
    return (
        f"names = [{names}]\n"
        f'found = SESSION.run(names, {{"image": {_image(card)}{columns}}})\n'
        "return {name: values[0] for name, values in zip(names, found)}"
    )


PYTHON = Language(
    template=_CODE,
    fits=_FITS,
    labels=_LABELS,
    classes="",
    reads=_READ,
    entry="«NAME»: «READ»",
    runtimes={"tflite": _TFLITE, "onnx": _ONNX},
    runs={"tflite": _run_tflite, "onnx": _run_onnx},
    columns=_columns,
    beside=(", columns=UNKNOWN", ", columns"),
    literal=quoted,
)
