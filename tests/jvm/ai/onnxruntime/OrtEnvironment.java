package ai.onnxruntime;

/** A stand-in with the signatures of onnxruntime's own. */
public final class OrtEnvironment implements AutoCloseable {
    public static OrtEnvironment getEnvironment() {
        return new OrtEnvironment();
    }

    public OrtSession createSession(byte[] model) throws OrtException {
        if (model.length == 0) throw new OrtException("empty");
        return new OrtSession();
    }

    @Override
    public void close() {}
}
