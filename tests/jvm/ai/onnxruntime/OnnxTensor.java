package ai.onnxruntime;

import java.nio.FloatBuffer;
import java.util.Arrays;

/** A stand-in with the signatures of onnxruntime's own. */
public class OnnxTensor extends OnnxTensorLike {
    final float[] values;
    boolean closed;

    private OnnxTensor(float[] values) {
        this.values = values;
    }

    public static OnnxTensor createTensor(OrtEnvironment environment, FloatBuffer data, long[] shape) throws OrtException {
        float[] values = new float[data.remaining()];
        data.get(values);
        if (Arrays.stream(shape).reduce(1, (a, b) -> a * b) != values.length) throw new OrtException("shape");
        return new OnnxTensor(values);
    }

    public FloatBuffer getFloatBuffer() {
        return FloatBuffer.wrap(values);
    }

    @Override
    public void close() {
        closed = true;
    }
}
