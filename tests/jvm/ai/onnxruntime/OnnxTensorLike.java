package ai.onnxruntime;

/** A stand-in with the signatures of onnxruntime's own. */
public abstract class OnnxTensorLike implements OnnxValue {}
