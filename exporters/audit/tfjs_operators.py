"""Which operators of a graph model run in TF.js 4.22 on its WebAssembly backend, the one with the fewest kernels.

Made from the packages themselves: the operators that tfjs-converter has code for, less those whose kernels
tfjs-backend-wasm lacks (complex numbers, Fourier transforms, einsum, ragged tensors); `tests/tfjs_kernels.py` makes it anew.
"""

_NAMES = """
    _FusedConv2D _FusedMatMul Abs Acos Acosh Add AddN AddV2 All Any ArgMax ArgMin Asin Asinh Atan Atan2 Atanh
    AvgPool AvgPool3D BatchMatMul BatchMatMulV2 BatchToSpaceND BiasAdd Bincount BitwiseAnd BroadcastArgs BroadcastTo
    Cast Ceil ClipByValue ComplexAbs Concat ConcatV2 Const Conv1D Conv2D Conv2DBackpropInput Conv2dTranspose Conv3D
    Cos Cosh CropAndResize Cumprod Cumsum DenseBincount DepthToSpace DepthwiseConv2d DepthwiseConv2dNative
    Dilation2D Div DivNoNan Elu EmptyTensorList EnsureShape Enter Equal Erf EuclideanNorm Exit Exp ExpandDims Expm1
    FakeQuantWithMinMaxVars Fill Floor FloorDiv FloorMod FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3
    FusedDepthwiseConv2dNative Gather GatherNd GatherV2 Greater GreaterEqual HashTable HashTableV2 Identity
    IdentityN If ImageProjectiveTransformV3 InitializeTable InitializeTableV2 IsFinite IsInf IsNan LeakyRelu Less
    LessEqual LinSpace ListDiff Log Log1p LogicalAnd LogicalNot LogicalOr LogSoftmax LookupTableFind
    LookupTableFindV2 LookupTableImport LookupTableImportV2 LookupTableSize LookupTableSizeV2 LoopCond LowerBound
    LRN MatMul MatrixBandPart Max Maximum MaxPool MaxPool3D MaxPoolWithArgmax Mean Merge Min Minimum MirrorPad Mod
    Mul Multinomial Neg NextIteration NonMaxSuppressionV2 NonMaxSuppressionV3 NonMaxSuppressionV4
    NonMaxSuppressionV5 NoOp NotEqual OneHot Ones OnesLike Pack Pad PadV2 Placeholder PlaceholderWithDefault Pow
    Prelu Print Prod RandomStandardNormal RandomUniform RandomUniformInt Range Rank RealDiv Reciprocal Relu Relu6
    Reshape ResizeBilinear ResizeNearestNeighbor Reverse ReverseV2 Round Rsqrt ScatterNd Select SelectV2 Selu Shape
    ShapeN Sigmoid Sign Sin Sinh Size Slice Snapshot Softmax Softplus SpaceToBatchND SparseFillEmptyRows
    SparseReshape SparseSegmentMean SparseSegmentSum SparseToDense Split SplitV Sqrt Square SquaredDifference
    Squeeze StatelessIf StatelessWhile StopGradient StridedSlice StringNGrams StringSplit StringToHashBucketFast Sub
    Sum Switch Tan Tanh TensorArrayCloseV3 TensorArrayConcatV3 TensorArrayGatherV3 TensorArrayReadV3
    TensorArrayScatterV3 TensorArraySizeV3 TensorArraySplitV3 TensorArrayV3 TensorArrayWriteV3 TensorListConcat
    TensorListConcatV2 TensorListFromTensor TensorListGather TensorListGetItem TensorListLength TensorListPopBack
    TensorListPushBack TensorListReserve TensorListResize TensorListScatter TensorListScatterV2 TensorListSetItem
    TensorListSplit TensorListStack TensorScatterUpdate Tile TopKV2 Transpose TruncatedNormal Unique UniqueV2 Unpack
    UpperBound Where While Zeros ZerosLike
"""
RUNNABLE = frozenset(_NAMES.split())
# What a fused operator may hold besides: `FusableActivation` of tfjs-backend-wasm, under TensorFlow's names; `NoOp` stands
# in the place of a bias that is not there.
NO_BIAS = "NoOp"
FUSABLE = frozenset({"BiasAdd", "Elu", "LeakyRelu", NO_BIAS, "Prelu", "Relu", "Relu6", "Sigmoid"})
