package ai.onnxruntime;

/** A stand-in with the signatures of onnxruntime's own. */
public interface OnnxValue extends AutoCloseable {
    @Override
    void close();
}
