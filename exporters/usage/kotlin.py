"""Kotlin code that answers with a TFLite or an ONNX artifact on Android."""

from __future__ import annotations

from exporters.contract import BINARY, EMBEDDING, MULTILABEL, ORDINAL, SEGMENTATION, Card
from exporters.usage.parts import NAMED, RANKED, Language, defaults, names_of, quoted

_CODE = """
// build.gradle: implementation("«INSTALL»")
import android.graphics.Bitmap
«IMPORT»
import java.io.InputStream
«BUFFERS»

/** `open` gives the files of this folder: `Model(context.assets::open)` where they are assets. */
class Model(private val open: (String) -> InputStream) {
    «OPEN»
    «COLUMNS»

    /** A picture as the model takes it, RGB, «WIDTH» x «HEIGHT»; the bitmap upright, and not one of the GPU's. */
    fun pixels(bitmap: Bitmap): ByteArray {
        val argb = IntArray(bitmap.width * bitmap.height)
        bitmap.getPixels(argb, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
        val data = ByteArray(argb.size * 3)
        for (at in argb.indices) {
            val alpha = argb[at] ushr 24
            for (c in 0..2) {
                val color = (argb[at] ushr (16 - 8 * c)) and 255
                data[at * 3 + c] = ((color * alpha + 255 * (255 - alpha) + 127) / 255).toByte()
            }
        }
        return fit(Picture(data, bitmap.width, bitmap.height)).data
    }

    /** Output -> its numbers. */
    fun numbers(bitmap: Bitmap«PARAMETER»): Map<String, FloatArray> {
        «RUN»
    }

    /** Output -> what its numbers say. */
    fun answer(bitmap: Bitmap«PARAMETER»): Map<String, Any> {
        val found = numbers(bitmap«ARGUMENT»)
        return mapOf(
            «READ»
        )
    }

    «LABELS»

    private class Picture(val data: ByteArray, val width: Int, val height: Int)

    «FIT»

    /** As Pillow does it: the values between the two passes are rounded to 8 bits, so their order shows. */
    private fun stretch(picture: Picture, width: Int, height: Int): Picture {
        val lost = picture.height - height
        val heightFirst = lost > 0 && lost > 2 * (picture.width - width)
        val first = if (heightFirst) resample(picture, height, true) else picture
        return resample(resample(first, width, false), height, true)
    }

    /** Average one axis by a triangle that widens as the picture shrinks, its weights rounded to 22 bits. */
    private fun resample(picture: Picture, to: Int, vertical: Boolean): Picture {
        val from = if (vertical) picture.height else picture.width
        if (from == to) return picture
        val lines = if (vertical) picture.width else picture.height
        val made = if (vertical) Picture(ByteArray(picture.width * to * 3), picture.width, to)
        else Picture(ByteArray(to * picture.height * 3), to, picture.height)
        val step = if (vertical) picture.width * 3 else 3
        val lineStep = if (vertical) 3 else picture.width * 3
        val madeStep = if (vertical) made.width * 3 else 3
        val madeLineStep = if (vertical) 3 else made.width * 3
        val scale = from.toDouble() / to
        val reach = Math.max(scale, 1.0)
        for (i in 0 until to) {
            val center = (i + 0.5) * scale
            val first = Math.max(0, (center - reach + 0.5).toInt())
            val last = Math.min(from, (center + reach + 0.5).toInt())
            val shares = DoubleArray(last - first) { Math.max(0.0, 1 - Math.abs((it + first - center + 0.5) * (1 / reach))) }
            val sum = shares.sum()
            val weights = IntArray(shares.size) { (0.5 + shares[it] / sum * 4194304).toInt() }
            for (line in 0 until lines) {
                for (c in 0..2) {
                    var value = 2097152
                    for (k in first until last) {
                        value += (picture.data[line * lineStep + k * step + c].toInt() and 255) * weights[k - first]
                    }
                    made.data[line * madeLineStep + i * madeStep + c] = Math.min(255, value shr 22).toByte()
                }
            }
        }
        return made
    }
}
"""

_FIT = {
    "stretch": "private fun fit(picture: Picture) = stretch(picture, «WIDTH», «HEIGHT»)",
    "center": """/** The largest box of the model's aspect in the middle. */
private fun fit(picture: Picture): Picture {
    val wide = picture.width * «HEIGHT» > picture.height * «WIDTH»
    val width = if (wide) Math.max(1, picture.height * «WIDTH» / «HEIGHT») else picture.width
    val height = if (wide) picture.height else Math.max(1, picture.width * «HEIGHT» / «WIDTH»)
    val left = (picture.width - width) / 2
    val top = (picture.height - height) / 2
    val box = Picture(ByteArray(width * height * 3), width, height)
    for (row in 0 until height) {
        System.arraycopy(picture.data, ((top + row) * picture.width + left) * 3, box.data, row * width * 3, width * 3)
    }
    return stretch(box, «WIDTH», «HEIGHT»)
}""",
    "pad": """/** The whole picture in the middle of a black one. */
private fun fit(picture: Picture): Picture {
    val wide = picture.width * «HEIGHT» > picture.height * «WIDTH»
    val width = if (wide) «WIDTH» else Math.max(1, picture.width * «HEIGHT» / picture.height)
    val height = if (wide) Math.max(1, picture.height * «WIDTH» / picture.width) else «HEIGHT»
    val left = («WIDTH» - width) / 2
    val top = («HEIGHT» - height) / 2
    val inner = stretch(picture, width, height)
    val black = Picture(ByteArray(«WIDTH» * «HEIGHT» * 3), «WIDTH», «HEIGHT»)
    for (row in 0 until height) {
        System.arraycopy(inner.data, row * width * 3, black.data, ((top + row) * «WIDTH» + left) * 3, width * 3)
    }
    return black
}""",
}

_LABELS = """private fun labels(name: String): List<String> = open(name).bufferedReader(Charsets.UTF_8).use { it.readLines() }

private fun ranked(names: List<String>, probabilities: FloatArray): List<Pair<String, Float>> =
    names.zip(probabilities.toList()).sortedByDescending { it.second }"""

_CLASSES = """/** The likeliest class of each place, row by row. */
private fun classes(probabilities: FloatArray, count: Int) = IntArray(probabilities.size / count) { place ->
    (0 until count).fold(0) { best, c -> if (probabilities[place * count + c] > probabilities[place * count + best]) c else best }
}"""

_READ = {
    RANKED: "ranked(labels(«FILE»), found.getValue(«NAME»))",
    BINARY: "found.getValue(«NAME»)[0].let { ranked(labels(«FILE»), floatArrayOf(1 - it, it)) }",
    MULTILABEL: "ranked(labels(«FILE»), found.getValue(«NAME»)).filter { it.second > 0.5f }",
    ORDINAL: "labels(«FILE»)[found.getValue(«NAME»).count { it > 0.5f }]",
    NAMED: "listOf(«NAMES»).zip(found.getValue(«NAME»).toList()).toMap()",
    EMBEDDING: "found.getValue(«NAME»)",
    SEGMENTATION: "classes(found.getValue(«NAME»), «COUNT»)",
}

_TFLITE = {
    "INSTALL": "com.google.ai.edge.litert:litert:1.4.1",
    "BUFFERS": "import java.nio.ByteBuffer\nimport java.nio.ByteOrder",
    "IMPORT": "import org.tensorflow.lite.DataType\nimport org.tensorflow.lite.Interpreter",
    "OPEN": """private val interpreter = open("model.tflite").use { Interpreter(direct(it.readBytes())) }

private fun direct(bytes: ByteArray): ByteBuffer {
    val buffer = room(bytes.size)
    buffer.put(bytes)
    buffer.rewind()
    return buffer
}

private fun room(bytes: Int): ByteBuffer = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())""",
}
_ONNX = {
    "INSTALL": "com.microsoft.onnxruntime:onnxruntime-android:latest.release",
    "BUFFERS": "import java.nio.FloatBuffer",
    "IMPORT": "import ai.onnxruntime.OnnxTensor\nimport ai.onnxruntime.OrtEnvironment",
    "OPEN": """private val environment = OrtEnvironment.getEnvironment()
private val session = open("model.onnx").use { environment.createSession(it.readBytes()) }

private fun tensor(values: FloatArray, vararg shape: Long): OnnxTensor =
    OnnxTensor.createTensor(environment, FloatBuffer.wrap(values), shape)""",
}


def _literal(text: str) -> str:
    # A dollar sign begins a value in Kotlin.
    return quoted(text).replace("$", "\\$")


def _listed(texts: list[str]) -> str:
    return ", ".join(map(_literal, texts))


def _columns(card: Card) -> str:
    lines = "".join(f"    {number}f, // {name}\n" for number, name in defaults(card))
    head, _, name = lines.rstrip("\n").rpartition("f, // ")
    return f"\n/** What stands for an unknown value, column by column. */\nval unknown = floatArrayOf(\n{head}f // {name}\n)"


def _run_tflite(card: Card) -> str:
    each = "value.toByte()" if card.input_dtype == "uint8" else "(value.toInt() and 255).toFloat()"
    put = "put(value)" if card.input_dtype == "uint8" else f"putFloat({each})"
    bytes_ = card.resize.width * card.resize.height * 3 * (1 if card.input_dtype == "uint8" else 4)
    names = _listed(names_of(card))
    lines = [
        f"val image = room({bytes_})",
        f"for (value in pixels(bitmap)) image.{put}",
        "image.rewind()",
        'val inputs = mutableMapOf<String, Any>("image" to image)',
    ]
    if card.columns:
        lines += [
            f"val beside = room({4 * len(card.columns)})",
            "for (value in columns) beside.putFloat(value)",
            "beside.rewind()",
            'inputs["columns"] = beside',
        ]
    lines += [
        f"val names = listOf({names})",
        'val tensors = names.associateWith { interpreter.getOutputTensorFromSignature(it, "serving_default") }',
        "val outputs = tensors.mapValues { room(it.value.numBytes()) }",
        'interpreter.runSignature(inputs, outputs, "serving_default")',
        "return outputs.mapValues { (name, buffer) ->",
        "    buffer.rewind()",
        "    val tensor = tensors.getValue(name)",
        "    val (scale, zero) = tensor.quantizationParams().let { it.scale to it.zeroPoint }",
        "    FloatArray(tensor.numElements()) {",
        "        if (tensor.dataType() == DataType.FLOAT32) buffer.getFloat()",
        "        else ((buffer.get().toInt() and 255) - zero) * scale",
        "    }",
        "}",
    ]
    return "\n".join(lines)


def _run_onnx(card: Card) -> str:
    names = _listed(names_of(card))
    shape = f"1, {card.resize.height}, {card.resize.width}, 3"
    beside = [f'inputs["columns"] = tensor(columns, 1, {len(card.columns)})'] if card.columns else []
    return "\n".join(
        [
            "val data = pixels(bitmap)",
            "val values = FloatArray(data.size) { (data[it].toInt() and 255).toFloat() }",
            f'val inputs = mutableMapOf("image" to tensor(values, {shape}))',
            *beside,
            "try {",
            f"    session.run(inputs, setOf({names})).use {{ answers ->",
            "        return answers.associate { (name, value) ->",
            "            val buffer = (value as OnnxTensor).floatBuffer",
            "            name to FloatArray(buffer.remaining()) { buffer.get() }",
            "        }",
            "    }",
            "} finally {",
            "    inputs.values.forEach { it.close() }",
            "}",
        ]
    )


KOTLIN = Language(
    template=_CODE,
    fits=_FIT,
    labels=_LABELS,
    classes=_CLASSES,
    reads=_READ,
    entry="«NAME» to «READ»",
    runtimes={"tflite": _TFLITE, "onnx": _ONNX},
    runs={"tflite": _run_tflite, "onnx": _run_onnx},
    columns=_columns,
    beside=(", columns: FloatArray = unknown", ", columns"),
    literal=_literal,
)
