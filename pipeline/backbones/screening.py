"""Looks through what a model file says of its network, before anything of it is made: stock classes of Keras only.

Keras's safe mode refuses code in a Lambda, but not in files of the legacy HDF5 format of every version, and it can be
switched off for a whole process. So nothing is left to it: every class and function that a file names must stand in the
lists below. They leave out what can hold code, open a file or load another model (Lambda, TFSMLayer, TorchModuleWrapper,
JaxLayer, the vocabularies of StringLookup and its kin), and whatever is no part of Keras.
"""

from __future__ import annotations

import re
from typing import Any

from exporters.errors import InputError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Keras's preprocessing of tables, which our own models have where they take columns.
OF_COLUMNS = _words("CategoryEncoding Discretization HashedCrossing Hashing")
MODELS = frozenset({"Functional", "Sequential", "Model"})
# Do nothing but in training.
AUGMENTATION = _words(
    """
    AugMix CutMix GaussianDropout GaussianNoise AlphaDropout MixUp RandAugment RandomBrightness RandomColorDegeneration
    RandomColorJitter RandomContrast RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale
    RandomHeight RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation
    RandomSharpness RandomShear RandomTranslation RandomWidth RandomZoom
    """
)
LAYERS = AUGMENTATION | _words(
    """
    Activation ActivityRegularization AdaptiveAveragePooling2D AdaptiveMaxPooling2D Add AdditiveAttention Attention
    AutoContrast Average AveragePooling1D AveragePooling2D BatchNormalization Bidirectional CenterCrop Concatenate Conv1D
    Conv1DTranspose Conv2D Conv2DTranspose Convolution2D Cropping1D Cropping2D Dense DepthwiseConv1D DepthwiseConv2D Dot
    Dropout ELU EinsumDense Embedding Equalization Flatten GRU GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalMaxPooling1D GlobalMaxPooling2D GroupNormalization GroupQueryAttention Identity InputLayer LSTM
    LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D Maximum Minimum MultiHeadAttention Multiply
    Normalization PReLU Permute Pipeline RMSNormalization RandomCrop ReLU RepeatVector Rescaling Reshape Resizing
    SeparableConv1D SeparableConv2D SimpleRNN Softmax Solarization SpatialDropout1D SpatialDropout2D SpectralNormalization
    Subtract TimeDistributed UnitNormalization UpSampling1D UpSampling2D ZeroPadding1D ZeroPadding2D
    """
)
# Layers that keras.applications define for themselves.
OF_APPLICATIONS = {
    "LayerScale": "keras.src.applications.convnext",
    "CustomScaleLayer": "keras.src.applications.inception_resnet_v2",
}
ACTIVATIONS = _words(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear log_sigmoid
    log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid sparsemax
    squareplus swish tanh tanh_shrink threshold
    """
)
OPERATIONS = _words(
    """
    Abs Absolute Add AveragePool BatchNorm Cast Clip Concatenate Conv DepthwiseConv Divide Einsum Elu Exp ExpandDims Flip
    Gelu GetItem HardSigmoid HardSilu LayerNorm LeakyRelu Log Matmul Max MaxPool Maximum Mean Min Minimum Multiply Negative
    Normalize Pad Power Prod Relu Relu6 Repeat Reshape Rsqrt Selu SeparableConv Sigmoid Silu Softmax Softplus Split Sqrt
    Square Squeeze Stack Subtract Sum SwapAxes Tanh Tile Transpose TrueDivide Var
    """
)
_VALUES = frozenset(
    {"__tensor__", "__numpy__", "__keras_tensor__", "__slice__", "__ellipsis__", "__tuple__", "TensorShape"}
)
_HELPERS = ("keras.initializers", "keras.regularizers", "keras.constraints", "keras.dtype_policies")
_SOURCE = {"layers": LAYERS, "models": MODELS, "engine": MODELS | LAYERS, "ops": OPERATIONS}
_CODE = frozenset({"Lambda", "__lambda__"})


def screen(config: Any, path: object) -> None:
    """Look through a network's description.

    Args:
        config: parsed JSON.
        path: for messages.

    Raises:
        InputError: it names a class or function that is no stock part of Keras, or one that could run code or read files.
    """
    refuse_code(config, path)
    for found, where in _named(config, ""):
        _check(found, where, path)


def refuse_code(config: Any, path: object) -> None:
    """Raise InputError where a description holds a Lambda; see `screen`."""
    for found, where in _named(config, ""):
        if isinstance(found["class_name"], str) and found["class_name"] in _CODE:
            raise InputError(
                f"The model {path} is not loaded: its layer '{where}' is a Lambda, whose code would run here.",
                "stock layers alone",
                "replace the Lambda by stock layers where the model comes from; or say --trust, if you trust who made it",
            )


def without_training(config: Any) -> Any:
    """Return a description without what training alone needs: losses, metrics and optimizers of every model inside."""
    if isinstance(config, list):
        return [without_training(each) for each in config]
    if isinstance(config, dict):
        return {key: without_training(value) for key, value in config.items() if key != "compile_config"}
    return config


def has_code(config: Any) -> bool:
    """Tell whether a description holds a Lambda."""
    return any(isinstance(found["class_name"], str) and found["class_name"] in _CODE for found, _ in _named(config, ""))


def _named(value: Any, where: str) -> list[tuple[dict[str, Any], str]]:
    """Return every part that names a class, with the name of the layer it stands in."""
    waiting, found = [(value, where)], []
    while waiting:
        value, where = waiting.pop()
        if isinstance(value, dict):
            inner = value.get("config")
            name = value.get("name") or (inner.get("name") if isinstance(inner, dict) else None)
            where = name if isinstance(name, str) else where
            if "class_name" in value:
                found.append((value, where))
            waiting += [(each, where) for each in value.values()]
        elif isinstance(value, list):
            waiting += [(each, where) for each in value]
    return found


def _check(found: dict[str, Any], where: str, path: object) -> None:
    name, module = found["class_name"], found.get("module")
    if not isinstance(name, str) or not (module is None or isinstance(module, str)):
        raise _refused(str(name), where, path)
    if found.get("registered_name") not in (None, "", name) and name != "function":
        raise _refused(str(found["registered_name"]), where, path)
    if not _is_known(name, module, found):
        raise _refused(f"{module}.{name}" if module else name, where, path)


def _is_known(name: str, module: str | None, found: dict[str, Any]) -> bool:
    if name in _VALUES:
        return True
    if name == "function":
        return found.get("config") in ACTIVATIONS
    if module is None:
        # The legacy format names no module: layers, and beside them initializers and their like.
        return name in LAYERS | MODELS or bool(re.fullmatch(_LEGACY_HELPER, name))
    if name in OF_APPLICATIONS:
        return module == OF_APPLICATIONS[name]
    if module in _HELPERS or module.startswith(tuple(f"{_source(each)}." for each in _HELPERS)):
        return bool(re.fullmatch(r"[A-Z][A-Za-z0-9]*", name))
    if module in ("keras", "keras.models"):
        return name in MODELS | {"DTypePolicy"}
    if module == "keras.layers":
        return name in LAYERS
    parts = module.split(".")
    return parts[:2] == ["keras", "src"] and len(parts) > 2 and name in _SOURCE.get(parts[2], ())


_LEGACY_HELPER = (
    "Zeros|Ones|Constant|RandomNormal|RandomUniform|TruncatedNormal|VarianceScaling|Orthogonal|Identity|GlorotUniform|"
    "GlorotNormal|HeNormal|HeUniform|LecunNormal|LecunUniform|L1|L2|L1L2|MaxNorm|NonNeg|UnitNorm|MinMaxNorm|Policy|DTypePolicy"
)


def _source(public: str) -> str:
    return public.replace("keras.", "keras.src.", 1)


def _refused(what: str, where: str, path: object) -> InputError:
    place = f"its layer '{where}' is" if where else "it holds"
    if what.rpartition(".")[2] in OF_COLUMNS:
        return InputError(
            f"The model {path} is not loaded: {place} {what[:100]}, which is for columns of a table, and no picture.",
            "a model of pictures alone",
            "a model that cutpoint trained with columns is exported and verified in its own folder: `cutpoint export FOLDER`",
        )
    return InputError(
        f"The model {path} is not loaded: {place} {what[:100]}, which is none of Keras's layers for pictures.",
        "stock layers of Keras, which neither run code of a file nor open other files",
        "rebuild that part of stock layers where the model comes from, or cut the model before it and save that",
    )
