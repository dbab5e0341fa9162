package org.tensorflow.lite;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.HashMap;
import java.util.Map;

/** A stand-in with the signatures of LiteRT's own: keeps what it is given, and answers with numbers laid down for it. */
public final class Interpreter implements AutoCloseable {
    /** Output name to its numbers; where they are in `integers`, they are given in steps of 1/256, else as floats. */
    public static final Map<String, float[]> numbers = new HashMap<>();

    public static final java.util.Set<String> integers = new java.util.HashSet<>();

    /** Input name to the bytes that came last. */
    public static final Map<String, byte[]> given = new HashMap<>();

    public Interpreter(ByteBuffer model) {
        if (!model.isDirect() || model.remaining() == 0 || model.order() != ByteOrder.nativeOrder()) {
            throw new IllegalArgumentException("a direct buffer of native order");
        }
    }

    public Tensor getOutputTensorFromSignature(String name, String signature) {
        check(signature);
        float[] values = numbers.get(name);
        boolean integer = integers.contains(name);
        return new Tensor() {
            public DataType dataType() {
                return integer ? DataType.UINT8 : DataType.FLOAT32;
            }

            public int numBytes() {
                return values.length * (integer ? 1 : 4);
            }

            public int numElements() {
                return values.length;
            }

            public int[] shape() {
                return new int[] {1, values.length};
            }

            public QuantizationParams quantizationParams() {
                return new QuantizationParams(integer ? 1f / 256 : 0, 0);
            }
        };
    }

    public void runSignature(Map<String, Object> inputs, Map<String, Object> outputs, String signature) {
        check(signature);
        inputs.forEach((name, value) -> {
            ByteBuffer buffer = (ByteBuffer) value;
            if (!buffer.isDirect() || buffer.order() != ByteOrder.nativeOrder()) throw new IllegalArgumentException(name);
            byte[] bytes = new byte[buffer.remaining()];
            buffer.get(bytes);
            given.put(name, bytes);
        });
        outputs.forEach((name, value) -> {
            ByteBuffer buffer = (ByteBuffer) value;
            for (float each : numbers.get(name)) {
                if (integers.contains(name)) buffer.put((byte) Math.round(each * 256));
                else buffer.putFloat(each);
            }
        });
    }

    public void close() {}

    private static void check(String signature) {
        if (!signature.equals("serving_default")) throw new IllegalArgumentException(signature);
    }
}
