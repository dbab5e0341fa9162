package ai.onnxruntime;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.Iterator;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.tensorflow.lite.Interpreter;

/** A stand-in with the signatures of onnxruntime's own; answers as the one of LiteRT does. */
public class OrtSession implements AutoCloseable {
    public Result run(Map<String, ? extends OnnxTensorLike> inputs, Set<String> outputs) throws OrtException {
        inputs.forEach((name, value) -> {
            float[] values = ((OnnxTensor) value).values;
            ByteBuffer bytes = ByteBuffer.allocate(values.length * 4).order(ByteOrder.nativeOrder());
            bytes.asFloatBuffer().put(values);
            Interpreter.given.put(name, bytes.array());
        });
        Map<String, OnnxValue> found = new TreeMap<>();
        for (String name : outputs) {
            float[] values = Interpreter.numbers.get(name);
            found.put(name, OnnxTensor.createTensor(null, FloatBuffer.wrap(values), new long[] {1, values.length}));
        }
        return new Result(found);
    }

    @Override
    public void close() throws OrtException {}

    public static class Result implements AutoCloseable, Iterable<Map.Entry<String, OnnxValue>> {
        private final Map<String, OnnxValue> values;

        Result(Map<String, OnnxValue> values) {
            this.values = values;
        }

        @Override
        public Iterator<Map.Entry<String, OnnxValue>> iterator() {
            return values.entrySet().iterator();
        }

        @Override
        public void close() {
            values.values().forEach(OnnxValue::close);
        }
    }
}
