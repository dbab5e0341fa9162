package ai.onnxruntime;

/** A stand-in with the signatures of onnxruntime's own. */
public class OrtException extends Exception {
    public OrtException(String message) {
        super(message);
    }
}
