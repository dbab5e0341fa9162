import android.graphics.Bitmap
import java.io.File
import java.io.InputStream
import java.nio.ByteBuffer
import org.tensorflow.lite.Interpreter

class Told(val pixels: ByteArray, val numbers: Map<String, FloatArray>, val answer: Map<String, Any>)

/** Lets the code of one README answer one picture, and prints what came of it as a line of JSON. */
fun tell(folder: File, use: (open: (String) -> InputStream, bitmap: Bitmap) -> Told) {
    Interpreter.numbers.clear()
    Interpreter.integers.clear()
    Interpreter.given.clear()
    for (line in File(folder, "numbers.txt").readLines()) {
        val (name, type, values) = line.split("\t")
        Interpreter.numbers[name] = values.split(" ").map { it.toFloat() }.toFloatArray()
        if (type == "uint8") Interpreter.integers.add(name)
    }
    val (width, height) = File(folder, "size.txt").readText().trim().split(" ").map { it.toInt() }
    val argb = IntArray(width * height)
    ByteBuffer.wrap(File(folder, "argb.bin").readBytes()).asIntBuffer().get(argb)
    val told = use({ File(folder, it).inputStream() }, Bitmap(argb, width))
    val given = Interpreter.given.mapValues { (_, bytes) -> hex(bytes) }
    println(json(mapOf("pixels" to hex(told.pixels), "given" to given, "numbers" to told.numbers, "answer" to told.answer)))
}

private fun hex(bytes: ByteArray) = bytes.joinToString("") { "%02x".format(it) }

private fun json(value: Any?): String = when (value) {
    is Map<*, *> -> value.entries.joinToString(",", "{", "}") { (key, each) -> "${json(key)}:${json(each)}" }
    is List<*> -> value.joinToString(",", "[", "]") { json(it) }
    is Pair<*, *> -> json(value.toList())
    is FloatArray -> json(value.toList())
    is IntArray -> json(value.toList())
    is String -> "\"" + value.replace("\\", "\\\\").replace("\"", "\\\"") + "\""
    else -> value.toString()
}
