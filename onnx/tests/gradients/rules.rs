//! Every rule, with its broadcast and attribute cases, against central differences.

use backstitch_onnx::Tensor;
use backstitch_onnx::autodiff::{Loss, rules};

use super::case::{Case, Step};

pub(super) const LOSSES: [Loss; 4] =
    [Loss::SoftmaxCrossEntropy, Loss::SigmoidCrossEntropy, Loss::MeanSquaredError, Loss::Entropy];

/// (name, trainable tensors, graph, operator set).
type Row = (&'static str, &'static str, &'static str, i64);

const ARITHMETIC: &[Row] = &[
    ("add", "a:2x3 b:2x3", "y = Add(a, b)", 13),
    ("add_row", "a:2x3 b:3", "y = Add(a, b)", 13),
    ("add_column", "a:2x3 b:2x1", "y = Add(a, b)", 13),
    ("add_scalar", "a:2x3 b:", "y = Add(a, b)", 13),
    ("add_both_broadcast", "a:2x1x4 b:3x1", "y = Add(a, b)", 13),
    ("add_itself", "a:2x3", "y = Add(a, a)", 13),
    ("sub", "a:2x3 b:3", "y = Sub(a, b)", 13),
    ("sub_left", "a:3 b:2x3", "y = Sub(a, b)", 13),
    ("mul", "a:2x3 b:2x3", "y = Mul(a, b)", 13),
    ("mul_broadcast", "a:1x3 b:2x1", "y = Mul(a, b)", 13),
    ("mul_itself", "a:2x3", "y = Mul(a, a)", 13),
    ("div", "a:2x3 b:2x3@0.5..2", "y = Div(a, b)", 13),
    ("div_broadcast", "a:2x1 b:4x1x3@0.5..2", "y = Div(a, b)", 13),
    ("pow_square", "a:2x3", "y = Pow(a, 2.0)", 13),
    ("pow_cube", "a:2x3", "y = Pow(a, 3.0)", 13),
    ("pow_root", "a:2x3@0.5..2", "y = Pow(a, 0.5)", 13),
    ("pow_one", "a:2x3", "y = Pow(a, 1.0)", 13),
    ("pow_constant", "a:2x3@0.5..2", "y = Pow(a, 1.7)", 13),
    ("pow_integer", "a:2x3@0.5..2", "y = Pow(a, [2,3,4])", 13),
    ("pow_both", "a:2x3@0.5..2 e:3", "y = Pow(a, e)", 13),
    ("neg", "a:2x3", "y = Neg(a)", 13),
    ("abs", "a:2x3", "y = Abs(a)", 13),
    ("sqrt", "a:2x3@0.5..2", "y = Sqrt(a)", 13),
    ("reciprocal", "a:2x3@0.5..2", "y = Reciprocal(a)", 13),
    ("exp", "a:2x3", "y = Exp(a)", 13),
    ("log", "a:2x3@0.5..2", "y = Log(a)", 13),
    ("erf", "a:2x3", "y = Erf(a)", 13),
    ("sin", "a:2x3", "y = Sin(a)", 13),
    ("cos", "a:2x3", "y = Cos(a)", 13),
    ("tan", "a:2x3@-1..1", "y = Tan(a)", 13),
    ("asin", "a:2x3@-0.8..0.8", "y = Asin(a)", 13),
    ("acos", "a:2x3@-0.8..0.8", "y = Acos(a)", 13),
    ("atan", "a:2x3", "y = Atan(a)", 13),
    ("sinh", "a:2x3", "y = Sinh(a)", 13),
    ("cosh", "a:2x3", "y = Cosh(a)", 13),
    ("asinh", "a:2x3", "y = Asinh(a)", 13),
    ("acosh", "a:2x3@1.5..3", "y = Acosh(a)", 13),
    ("atanh", "a:2x3@-0.8..0.8", "y = Atanh(a)", 13),
    ("sum", "a:2x3 b:3 c:2x1", "y = Sum(a, b, c)", 13),
    ("mean", "a:2x3 b:3 c:2x1", "y = Mean(a, b, c)", 13),
    ("max", "a:2x3 b:3 c:2x1", "y = Max(a, b, c)", 13),
    ("min", "a:2x3 b:3", "y = Min(a, b)", 13),
    ("max_of_one", "a:2x3", "y = Max(a)", 13),
    ("where", "a:2x3 b:3", "m = Greater(a, 0.2); y = Where(m, a, b)", 13),
    ("where_scalar", "a:2x3 b:", "m = Less(a, 0.2); y = Where(m, b, a)", 13),
    ("identity", "a:2x3", "y = Identity(a)", 13),
    ("dropout", "a:2x3", "y = Dropout(a)", 13),
    ("cast", "a:2x3", "h = Cast(a) to=1; k = Mul(h, h); y = Cast(k) to=11", 13),
    ("cast_like", "a:2x3 b:2x3", "h = CastLike(a, b); y = Mul(h, b)", 15),
    (
        "mask",
        "a:2x3 b:2x3",
        "f = Floor(a); m = Round(b); s = Sign(a); t = Add(f, m); u = Add(t, s); v = Mul(a, u); y = Mul(v, b)",
        13,
    ),
];

const ACTIVATIONS: &[Row] = &[
    ("relu", "a:3x4", "y = Relu(a)", 13),
    ("leaky_relu", "a:3x4", "y = LeakyRelu(a) alpha=0.2", 13),
    ("prelu", "a:2x3x4 s:3x1", "y = PRelu(a, s)", 13),
    ("prelu_scalar", "a:3x4 s:1", "y = PRelu(a, s)", 13),
    ("elu", "a:3x4", "y = Elu(a) alpha=0.7", 13),
    ("selu", "a:3x4", "y = Selu(a)", 13),
    ("celu", "a:3x4", "y = Celu(a) alpha=0.7", 13),
    ("thresholded_relu", "a:3x4", "y = ThresholdedRelu(a) alpha=0.3", 13),
    ("sigmoid", "a:3x4", "y = Sigmoid(a)", 13),
    ("tanh", "a:3x4", "y = Tanh(a)", 13),
    ("clip", "a:3x4", "y = Clip(a, -0.5, 0.5)", 13),
    ("clip_low", "a:3x4", "y = Clip(a, -0.5)", 13),
    ("clip_high", "a:3x4", "y = Clip(a, _, 0.5)", 13),
    ("clip_bounds", "a:3x4 l:@-0.6..-0.4 h:@0.4..0.6", "y = Clip(a, l, h)", 13),
    ("hard_sigmoid", "a:3x4@-4..4", "y = HardSigmoid(a)", 13),
    ("hard_sigmoid_steep", "a:3x4", "y = HardSigmoid(a) alpha=0.7 beta=0.4", 13),
    ("hard_swish", "a:3x6@-5..5", "y = HardSwish(a)", 14),
    ("softplus", "a:3x4", "y = Softplus(a)", 13),
    ("softsign", "a:3x4", "y = Softsign(a)", 13),
    ("mish", "a:3x4", "y = Mish(a)", 18),
    ("mish_composed", "a:3x4", "s = Softplus(a); t = Tanh(s); y = Mul(a, t)", 13),
    ("silu_composed", "a:3x4", "s = Sigmoid(a); y = Mul(a, s)", 13),
    ("gelu", "a:3x4", "y = Gelu(a)", 20),
    ("gelu_tanh", "a:3x4", "y = Gelu(a) approximate=tanh", 20),
    (
        "gelu_composed",
        "a:3x4",
        "s = Div(a, 1.4142135); e = Erf(s); f = Add(e, 1.0); g = Mul(a, f); y = Mul(g, 0.5)",
        13,
    ),
    ("softmax", "a:3x4", "y = Softmax(a)", 13),
    ("softmax_first", "a:3x4", "y = Softmax(a) axis=0", 13),
    ("softmax_middle", "a:2x3x4", "y = Softmax(a) axis=1", 13),
    ("log_softmax", "a:3x4", "y = LogSoftmax(a)", 13),
    ("log_softmax_middle", "a:2x3x4", "y = LogSoftmax(a) axis=1", 13),
];

const LINEAR: &[Row] = &[
    ("matmul", "a:2x3 b:3x4", "y = MatMul(a, b)", 13),
    ("matmul_batch", "a:2x2x3 b:2x3x4", "y = MatMul(a, b)", 13),
    ("matmul_shared_right", "a:2x2x3 b:3x4", "y = MatMul(a, b)", 13),
    ("matmul_shared_left", "a:2x3 b:2x3x4", "y = MatMul(a, b)", 13),
    ("matmul_broadcast_both", "a:2x1x2x3 b:3x3x2", "y = MatMul(a, b)", 13),
    ("matmul_row", "a:3 b:3x4", "y = MatMul(a, b)", 13),
    ("matmul_column", "a:2x3 b:3", "y = MatMul(a, b)", 13),
    ("matmul_row_batch", "a:3 b:2x3x4", "y = MatMul(a, b)", 13),
    ("matmul_column_batch", "a:2x2x3 b:3", "y = MatMul(a, b)", 13),
    ("matmul_dot", "a:3 b:3", "y = MatMul(a, b)", 13),
    ("gemm", "a:2x3 b:3x4 c:4", "y = Gemm(a, b, c)", 13),
    ("gemm_no_bias", "a:2x3 b:3x4", "y = Gemm(a, b)", 13),
    ("gemm_scaled", "a:2x3 b:3x4 c:2x1", "y = Gemm(a, b, c) alpha=0.5 beta=2.0", 13),
    ("gemm_left", "a:3x2 b:3x4 c:", "y = Gemm(a, b, c) transA=1", 13),
    ("gemm_right", "a:2x3 b:4x3 c:2x4", "y = Gemm(a, b, c) transB=1", 13),
    ("gemm_both", "a:3x2 b:4x3 c:1x4", "y = Gemm(a, b, c) transA=1 transB=1 alpha=0.7", 13),
    ("einsum_product", "a:2x3 b:3x4", "y = Einsum(a, b) equation=ij,jk->ik", 13),
    ("einsum_batch", "a:2x3x4 b:2x5x4", "y = Einsum(a, b) equation=bij,bkj->bik", 13),
    ("einsum_heads", "a:2x3x2x4 b:2x5x2x4", "y = Einsum(a, b) equation=bqhd,bkhd->bhqk", 13),
    ("einsum_summed", "a:2x3 b:3x4", "y = Einsum(a, b) equation=ij,jk->k", 13),
    ("einsum_outer", "a:3 b:4", "y = Einsum(a, b) equation=i,j->ij", 13),
    ("einsum_turned", "a:2x3 b:3x4", "y = Einsum(a, b) equation=ij,jk->ki", 13),
    ("einsum_one", "a:2x3x4", "y = Einsum(a) equation=ijk->kj", 13),
    ("einsum_three", "a:2x3 b:3x4 c:2x4", "y = Einsum(a, b, c) equation=ni,ij,nj->nj", 13),
    ("einsum_bilinear", "a:2x3 b:4x3x5 c:2x5", "y = Einsum(a, b, c) equation=ni,oij,nj->no", 13),
    ("einsum_ellipsis", "a:2x3x4 b:4x5", "y = Einsum(a, b) equation=...ij,jk->...ik", 13),
    (
        "attention",
        "x:2x4x6 q:6x6 k:6x6 v:6x6",
        "a = MatMul(x, q); b = MatMul(x, k); c = MatMul(x, v); ar = Reshape(a, [2,4,2,3]); br = Reshape(b, [2,4,2,3]); \
         cr = Reshape(c, [2,4,2,3]); at = Transpose(ar) perm=[0,2,1,3]; bt = Transpose(br) perm=[0,2,3,1]; \
         ct = Transpose(cr) perm=[0,2,1,3]; s = MatMul(at, bt); d = Div(s, 1.732); n = Where(mask, d, -10000.0); p = Softmax(n); \
         o = MatMul(p, ct); ot = Transpose(o) perm=[0,2,1,3]; y = Reshape(ot, [2,4,6])",
        13,
    ),
];

const CONVOLUTIONS: &[Row] = &[
    ("conv_1d", "x:2x3x8 w:4x3x3 b:4", "y = Conv(x, w, b) pads=[1,1]", 13),
    ("conv_1d_stride", "x:1x2x9 w:3x2x3", "y = Conv(x, w) strides=[2]", 13),
    ("conv", "x:2x3x5x6 w:4x3x3x3 b:4", "y = Conv(x, w, b) pads=[1,1,1,1]", 13),
    ("conv_valid", "x:1x2x5x6 w:3x2x3x2", "y = Conv(x, w)", 13),
    ("conv_point", "x:2x3x4x4 w:5x3x1x1 b:5", "y = Conv(x, w, b)", 13),
    ("conv_point_stride", "x:2x3x5x4 w:2x3x1x1", "y = Conv(x, w) strides=[2,2]", 13),
    ("conv_stride", "x:1x2x7x8 w:3x2x3x3", "y = Conv(x, w) strides=[2,2] pads=[1,1,1,1]", 13),
    ("conv_stride_left_over", "x:1x2x8x8 w:3x2x3x3", "y = Conv(x, w) strides=[3,2]", 13),
    ("conv_dilation", "x:1x2x7x8 w:3x2x3x3", "y = Conv(x, w) dilations=[2,1] pads=[2,1,2,1]", 13),
    (
        "conv_stride_dilation",
        "x:1x2x9x9 w:2x2x3x3",
        "y = Conv(x, w) strides=[2,2] dilations=[2,2] pads=[1,0,2,1]",
        13,
    ),
    ("conv_uneven_pads", "x:1x2x5x5 w:3x2x3x3", "y = Conv(x, w) pads=[0,1,2,0]", 13),
    ("conv_wide_pads", "x:1x1x3x3 w:2x1x2x2", "y = Conv(x, w) pads=[2,2,2,2]", 13),
    ("conv_same_upper", "x:1x2x6x5 w:3x2x2x3", "y = Conv(x, w) auto_pad=SAME_UPPER", 13),
    ("conv_same_lower", "x:1x2x6x5 w:3x2x2x3", "y = Conv(x, w) auto_pad=SAME_LOWER", 13),
    (
        "conv_same_stride",
        "x:1x2x7x6 w:3x2x3x3",
        "y = Conv(x, w) auto_pad=SAME_UPPER strides=[2,2]",
        13,
    ),
    ("conv_auto_valid", "x:1x2x7x6 w:3x2x3x3", "y = Conv(x, w) auto_pad=VALID strides=[2,1]", 13),
    ("conv_groups", "x:2x4x5x5 w:6x2x3x3 b:6", "y = Conv(x, w, b) group=2 pads=[1,1,1,1]", 13),
    (
        "conv_groups_stride",
        "x:1x4x6x6 w:6x2x3x3",
        "y = Conv(x, w) group=2 pads=[1,1,1,1] strides=[2,2]",
        13,
    ),
    ("conv_depthwise", "x:2x3x5x5 w:3x1x3x3 b:3", "y = Conv(x, w, b) group=3 pads=[1,1,1,1]", 13),
    (
        "conv_depthwise_stride",
        "x:1x3x6x6 w:3x1x3x3",
        "y = Conv(x, w) group=3 pads=[1,1,1,1] strides=[2,2]",
        13,
    ),
    ("conv_multiplier", "x:1x3x5x5 w:6x1x3x3", "y = Conv(x, w) group=3 pads=[1,1,1,1]", 13),
    ("conv_transpose", "x:1x2x4x4 w:2x3x3x3 b:3", "y = ConvTranspose(x, w, b)", 13),
    ("conv_transpose_1d", "x:1x2x5 w:2x3x4", "y = ConvTranspose(x, w) strides=[2] pads=[1,1]", 13),
    (
        "conv_transpose_stride",
        "x:1x2x4x3 w:2x3x3x3",
        "y = ConvTranspose(x, w) strides=[2,2] pads=[1,1,1,1]",
        13,
    ),
    (
        "conv_transpose_padding",
        "x:1x2x4x3 w:2x3x3x3",
        "y = ConvTranspose(x, w) strides=[2,2] pads=[1,1,1,1] output_padding=[1,1]",
        13,
    ),
    (
        "conv_transpose_same",
        "x:1x2x3x4 w:2x3x3x2 b:3",
        "y = ConvTranspose(x, w, b) strides=[2,2] auto_pad=SAME_UPPER",
        13,
    ),
    (
        "conv_transpose_shape",
        "x:1x2x3x4 w:2x3x3x2 b:3",
        "y = ConvTranspose(x, w, b) strides=[2,2] output_shape=[6,8]",
        13,
    ),
    (
        "conv_transpose_groups",
        "x:1x4x3x3 w:4x2x2x2",
        "y = ConvTranspose(x, w) strides=[2,2] group=2",
        13,
    ),
    (
        "conv_transpose_dilation",
        "x:1x2x3x3 w:2x2x2x2",
        "y = ConvTranspose(x, w) dilations=[2,2]",
        13,
    ),
];

const POOLING: &[Row] = &[
    (
        "average_pool_before_product",
        "x:2x6x5 w:18x4",
        "p = AveragePool(x) kernel_shape=[3] strides=[2] pads=[1,1]; f = Flatten(p); y = MatMul(f, w)",
        13,
    ),
    ("max_pool", "x:2x3x4x6", "y = MaxPool(x) kernel_shape=[2,2] strides=[2,2]", 13),
    ("max_pool_left_over", "x:1x2x5x7", "y = MaxPool(x) kernel_shape=[2,2] strides=[2,2]", 13),
    ("max_pool_overlap", "x:1x2x5x5", "y = MaxPool(x) kernel_shape=[3,3] strides=[1,1]", 13),
    (
        "max_pool_resnet",
        "x:1x2x8x7",
        "y = MaxPool(x) kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1]",
        13,
    ),
    (
        "max_pool_ceil",
        "x:1x2x5x6",
        "y = MaxPool(x) kernel_shape=[2,2] strides=[2,2] ceil_mode=1",
        13,
    ),
    (
        "max_pool_same",
        "x:1x2x5x6",
        "y = MaxPool(x) kernel_shape=[2,2] strides=[2,2] auto_pad=SAME_UPPER",
        13,
    ),
    ("max_pool_1d", "x:1x2x9", "y = MaxPool(x) kernel_shape=[3] strides=[2]", 13),
    ("max_pool_gap", "x:1x2x9", "y = MaxPool(x) kernel_shape=[2] strides=[3]", 13),
    ("average_pool", "x:2x3x4x6", "y = AveragePool(x) kernel_shape=[2,2] strides=[2,2]", 13),
    (
        "average_pool_left_over",
        "x:1x2x5x7",
        "y = AveragePool(x) kernel_shape=[2,3] strides=[2,3]",
        13,
    ),
    ("average_pool_overlap", "x:1x2x5x5", "y = AveragePool(x) kernel_shape=[3,3]", 13),
    (
        "average_pool_pads",
        "x:1x2x5x6",
        "y = AveragePool(x) kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1]",
        13,
    ),
    (
        "average_pool_counting_pads",
        "x:1x2x5x6",
        "y = AveragePool(x) kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1] count_include_pad=1",
        13,
    ),
    ("average_pool_1d", "x:1x2x9", "y = AveragePool(x) kernel_shape=[3] strides=[2]", 13),
    ("global_average_pool", "x:2x3x4x5", "y = GlobalAveragePool(x)", 13),
    ("global_max_pool", "x:2x3x4x5", "y = GlobalMaxPool(x)", 13),
];

const NORMALISATIONS: &[Row] = &[
    (
        "batch_norm",
        "x:2x3x4x4 s:3@0.5..2 b:3 m:3 v:3@0.5..2",
        "y = BatchNormalization(x, s, b, m, v)",
        13,
    ),
    (
        "batch_norm_15",
        "x:2x3x4 s:3@0.5..2 b:3 m:3 v:3@0.5..2",
        "y = BatchNormalization(x, s, b, m, v)",
        15,
    ),
    ("layer_norm", "x:2x3x4 s:4@0.5..2 b:4", "y = LayerNormalization(x, s, b)", 17),
    (
        "layer_norm_two_axes",
        "x:2x3x4 s:3x4@0.5..2 b:3x4",
        "y = LayerNormalization(x, s, b) axis=1",
        17,
    ),
    ("layer_norm_no_bias", "x:2x3x4 s:4@0.5..2", "y = LayerNormalization(x, s) epsilon=0.001", 17),
    (
        "layer_norm_composed",
        "x:2x3x4 s:4@0.5..2 b:4",
        "m = ReduceMean(x) axes=[-1]; d = Sub(x, m); q = Pow(d, 2.0); v = ReduceMean(q) axes=[-1]; e = Add(v, 0.00001); \
         r = Sqrt(e); n = Div(d, r); g = Mul(n, s); y = Add(g, b)",
        13,
    ),
    ("instance_norm", "x:2x3x4x5 s:3@0.5..2 b:3", "y = InstanceNormalization(x, s, b)", 13),
    (
        "group_norm_18",
        "x:2x4x3x3 s:2@0.5..2 b:2",
        "y = GroupNormalization(x, s, b) num_groups=2",
        18,
    ),
    (
        "group_norm_21",
        "x:2x4x3x3 s:4@0.5..2 b:4",
        "y = GroupNormalization(x, s, b) num_groups=2",
        21,
    ),
    ("lp_norm", "x:2x3x4", "y = LpNormalization(x)", 13),
    ("lp_norm_one", "x:2x3x4", "y = LpNormalization(x) p=1 axis=1", 13),
    ("mean_variance_norm", "x:2x3x4x4", "y = MeanVarianceNormalization(x) axes=[0,2,3]", 13),
    ("local_response", "x:1x6x2x2", "y = LRN(x) size=3 alpha=0.3 beta=0.6 bias=1.2", 13),
];

const REDUCTIONS: &[Row] = &[
    ("reduce_sum", "x:2x3x4", "y = ReduceSum(x, [1])", 13),
    ("reduce_sum_all", "x:2x3x4", "y = ReduceSum(x)", 13),
    ("reduce_sum_dropped", "x:2x3x4", "y = ReduceSum(x, [0,-1]) keepdims=0", 13),
    ("reduce_sum_noop", "x:2x3", "y = ReduceSum(x) noop_with_empty_axes=1", 13),
    ("reduce_mean", "x:2x3x4", "y = ReduceMean(x) axes=[1,2]", 13),
    ("reduce_mean_18", "x:2x3x4", "y = ReduceMean(x, [1,2]) keepdims=0", 18),
    ("reduce_mean_all", "x:2x3x4", "y = ReduceMean(x) keepdims=0", 13),
    ("reduce_max", "x:2x3x4", "y = ReduceMax(x) axes=[1]", 13),
    ("reduce_max_18", "x:2x3x4", "y = ReduceMax(x, [0,2]) keepdims=0", 18),
    ("reduce_min", "x:2x3x4", "y = ReduceMin(x) axes=[-1] keepdims=0", 13),
    ("reduce_l1", "x:2x3x4", "y = ReduceL1(x) axes=[1]", 13),
    ("reduce_l2", "x:2x3x4", "y = ReduceL2(x) axes=[1,2]", 13),
    ("reduce_l2_18", "x:2x3x4", "y = ReduceL2(x, [-1]) keepdims=0", 18),
    ("reduce_sum_square", "x:2x3x4", "y = ReduceSumSquare(x) axes=[1] keepdims=0", 13),
    ("reduce_log_sum", "x:2x3x4@0.5..2", "y = ReduceLogSum(x) axes=[1]", 13),
    ("reduce_log_sum_exp", "x:2x3x4", "y = ReduceLogSumExp(x) axes=[1] keepdims=0", 13),
    ("reduce_prod", "x:2x3x4@0.5..1.5", "y = ReduceProd(x) axes=[1]", 13),
    ("cum_sum", "x:2x5", "y = CumSum(x, 1i)", 14),
    ("cum_sum_reverse", "x:3x4", "y = CumSum(x, 0i) reverse=1", 14),
    ("cum_sum_exclusive", "x:2x5", "y = CumSum(x, 1i) exclusive=1", 14),
];

const LAYOUTS: &[Row] = &[
    ("reshape", "x:2x6", "y = Reshape(x, [3,-1])", 13),
    ("reshape_keep", "x:2x3x4", "y = Reshape(x, [0,12])", 13),
    ("reshape_by_shape", "x:2x6 z:4x3", "s = Shape(z); r = Reshape(x, s); y = Mul(r, z)", 13),
    (
        "reshape_computed",
        "x:2x6",
        "s = Shape(x); n = Gather(s, [0]); t = Concat(n, [3,2]) axis=0; h = Reshape(x, t); y = Mul(h, h)",
        13,
    ),
    ("flatten", "x:2x3x4", "y = Flatten(x)", 13),
    ("flatten_last", "x:2x3x4", "y = Flatten(x) axis=-1", 13),
    ("squeeze", "x:2x1x3x1", "y = Squeeze(x, [1,-1])", 13),
    ("squeeze_all", "x:2x1x3x1", "y = Squeeze(x)", 13),
    ("unsqueeze", "x:2x3", "y = Unsqueeze(x, [0,-1])", 13),
    ("transpose", "x:2x3x4", "y = Transpose(x) perm=[1,2,0]", 13),
    ("transpose_default", "x:2x3x4", "y = Transpose(x)", 13),
    ("concat", "a:2x3 b:2x1 c:2x2", "y = Concat(a, b, c) axis=1", 13),
    ("concat_twice", "a:2x3", "y = Concat(a, a) axis=-1", 13),
    ("split_even", "x:2x6", "a, b, c = Split(x) axis=1; d = Mul(a, b); y = Mul(d, c)", 13),
    (
        "split_sizes",
        "x:2x6",
        "a, b = Split(x, [2,4]) axis=-1; c = ReduceSum(b, [1]); y = Mul(a, c)",
        13,
    ),
    ("split_one_read", "x:6x2", "a, b, c = Split(x); y = Mul(b, b)", 13),
    ("slice", "x:4x5", "y = Slice(x, [1,0], [3,4])", 13),
    ("slice_axes", "x:4x5x3", "y = Slice(x, [1,-2], [9,-1], [1,-1])", 13),
    ("slice_steps", "x:4x7", "y = Slice(x, [1], [7], [1], [2])", 13),
    ("slice_backwards", "x:4x7", "y = Slice(x, [5,-1], [0,-9], [1,0], [-2,-1])", 13),
    ("pad", "x:2x3", "y = Pad(x, [1,0,2,1])", 13),
    ("pad_value", "x:2x3", "y = Pad(x, [1,0,2,1], 0.7)", 13),
    ("pad_axes", "x:2x3x4", "y = Pad(x, [1,2], _, [1])", 18),
    ("pad_edge", "x:3x4", "y = Pad(x, [2,1,1,2]) mode=edge", 13),
    ("pad_reflect", "x:3x4", "y = Pad(x, [2,1,1,2]) mode=reflect", 13),
    ("expand", "x:3x1", "y = Expand(x, [2,3,4])", 13),
    ("expand_keep", "x:2x3", "y = Expand(x, [1,3])", 13),
    ("tile", "x:2x3", "y = Tile(x, [2,3])", 13),
    ("tile_one", "x:2x3", "y = Tile(x, [1,2])", 13),
    ("depth_to_space", "x:1x8x2x3", "y = DepthToSpace(x) blocksize=2", 13),
    ("depth_to_space_crd", "x:1x8x2x3", "y = DepthToSpace(x) blocksize=2 mode=CRD", 13),
    ("space_to_depth", "x:1x2x4x6", "y = SpaceToDepth(x) blocksize=2", 13),
    ("trilu", "x:3x4", "y = Trilu(x)", 14),
    ("trilu_lower", "x:2x4x4", "y = Trilu(x, 1i) upper=0", 14),
];

const INDEXING: &[Row] = &[
    ("gather", "x:5x3", "y = Gather(x, [0,2,2,4])", 13),
    ("gather_negative", "x:5x3", "y = Gather(x, [-1,0,-1])", 13),
    ("gather_axis", "x:2x5x3", "y = Gather(x, [3,1,1]) axis=1", 13),
    ("gather_scalar", "x:2x5x3", "y = Gather(x, 2i) axis=1", 13),
    ("gather_scalar_negative", "x:2x5x3", "y = Gather(x, -1i) axis=-1", 13),
    ("gather_one", "x:2x5", "y = Gather(x, [3]) axis=1", 13),
    ("gather_matrix", "x:5x3", "i = Reshape([0,1,4,1], [2,2]); y = Gather(x, i)", 13),
    (
        "gather_elements",
        "x:3x4",
        "i = Reshape([0,1,3,2,0,0], [3,2]); y = GatherElements(x, i) axis=1",
        13,
    ),
    (
        "gather_elements_negative",
        "x:3x4",
        "i = Reshape([0,-1,1,2], [1,4]); y = GatherElements(x, i) axis=0",
        13,
    ),
    ("gather_nd", "x:3x4x2", "i = Reshape([0,1,2,3,0,1], [3,2]); y = GatherND(x, i)", 13),
    ("gather_nd_negative", "x:3x4", "i = Reshape([0,-1,-1,2], [2,2]); y = GatherND(x, i)", 13),
    ("scatter_nd", "x:4x3 u:2x3", "i = Reshape([1,3], [2,1]); y = ScatterND(x, i, u)", 13),
    (
        "scatter_nd_add",
        "x:4x3 u:3x3",
        "i = Reshape([1,3,1], [3,1]); y = ScatterND(x, i, u) reduction=add",
        16,
    ),
    (
        "scatter_elements",
        "x:3x4 u:1x2",
        "i = Reshape([1,3], [1,2]); y = ScatterElements(x, i, u) axis=1",
        13,
    ),
    (
        "scatter_elements_add",
        "x:3x4 u:2x3",
        "i = Reshape([1,0,1,1,2,2], [2,3]); y = ScatterElements(x, i, u) axis=0 reduction=add",
        16,
    ),
    ("top_k", "x:3x5", "y, i = TopK(x, [2])", 13),
];

const RECURRENT: &[Row] = &[
    ("lstm", "x:3x2x3 w:1x8x3 r:1x8x2 b:1x16", "y = LSTM(x, w, r, b) hidden_size=2", 14),
    (
        "lstm_states",
        "x:3x2x3 w:2x8x3 r:2x8x2 h:2x2x2 c:2x2x2",
        "l, m, n = LSTM(x, w, r, _, _, h, c) hidden_size=2 direction=bidirectional; y = Add(m, n)",
        14,
    ),
    (
        "gru_reset_first",
        "x:3x2x3 w:1x6x3 r:1x6x2 b:1x12",
        "y = GRU(x, w, r, b) hidden_size=2 direction=reverse",
        14,
    ),
    (
        "gru_reset_last",
        "x:3x2x3 w:1x6x3 r:1x6x2 b:1x12 h:1x2x2",
        "y = GRU(x, w, r, b, _, h) hidden_size=2 linear_before_reset=1",
        14,
    ),
    ("rnn", "x:3x2x3 w:1x2x3 r:1x2x2 b:1x4", "y = RNN(x, w, r, b) hidden_size=2", 14),
    ("rnn_one_step", "x:1x2x3 w:1x2x3 r:1x2x2", "y = RNN(x, w, r) hidden_size=2", 14),
];

const RESIZES: &[Row] = &[
    (
        "resize_nearest",
        "x:1x2x3x4",
        "y = Resize(x, _, _, [1,2,6,8]) coordinate_transformation_mode=asymmetric nearest_mode=floor",
        13,
    ),
    ("resize_nearest_half", "x:1x2x3x4", "y = Resize(x, _, _, [1,2,6,8])", 13),
    (
        "resize_nearest_down",
        "x:1x2x6x8",
        "y = Resize(x, _, _, [1,2,3,4]) coordinate_transformation_mode=asymmetric nearest_mode=floor",
        13,
    ),
    ("resize_linear", "x:1x2x3x4", "y = Resize(x, _, _, [1,2,6,8]) mode=linear", 13),
    (
        "resize_linear_corners",
        "x:1x2x3x4",
        "y = Resize(x, _, _, [1,2,5,7]) mode=linear coordinate_transformation_mode=align_corners",
        13,
    ),
    (
        "resize_linear_asymmetric",
        "x:1x2x3x4",
        "y = Resize(x, _, _, [1,2,5,7]) mode=linear coordinate_transformation_mode=asymmetric",
        13,
    ),
    (
        "resize_linear_pytorch",
        "x:1x2x3x4",
        "y = Resize(x, _, _, [1,2,6,7]) mode=linear coordinate_transformation_mode=pytorch_half_pixel",
        13,
    ),
    ("resize_linear_down", "x:1x2x6x8", "y = Resize(x, _, _, [1,2,3,3]) mode=linear", 13),
    ("resize_scales", "x:1x2x3x4", "y = Resize(x, _, scales) mode=linear", 13),
    ("resize_cubic", "x:1x1x4x4", "y = Resize(x, _, _, [1,1,7,8]) mode=cubic", 13),
];

const NETWORKS: &[Row] = &[
    (
        "small_network",
        "x:2x1x8x8 w:4x1x3x3 b:4 u:4x4x3x3 c:4 f:16x3 g:3",
        "h = Conv(x, w, b) pads=[1,1,1,1]; r = Relu(h); p = MaxPool(r) kernel_shape=[2,2] strides=[2,2]; \
         k = Conv(p, u, c) pads=[1,1,1,1]; s = Tanh(k); q = AveragePool(s) kernel_shape=[2,2] strides=[2,2]; \
         e = Flatten(q); m = MatMul(e, f); y = Add(m, g)",
        13,
    ),
    (
        "residual",
        "x:2x3 w:3x3 v:3x3",
        "a = MatMul(x, w); b = Tanh(a); c = Add(x, b); d = MatMul(c, v); e = Sigmoid(d); y = Add(c, e)",
        13,
    ),
];

fn cases() -> Vec<Case> {
    let groups = [
        ARITHMETIC,
        ACTIVATIONS,
        LINEAR,
        CONVOLUTIONS,
        POOLING,
        NORMALISATIONS,
        REDUCTIONS,
        LAYOUTS,
        INDEXING,
        RECURRENT,
        RESIZES,
        NETWORKS,
    ];
    let mut cases: Vec<Case> = groups
        .into_iter()
        .flatten()
        .map(|(name, weights, graph, opset)| {
            let case = Case::new(name, weights, graph).opset(*opset);
            match *name {
                "resize_scales" => {
                    case.constant("scales", Tensor::vector(&[1.0f32, 1.0, 2.0, 1.5]))
                }
                "attention" => {
                    let causal: Vec<bool> = (0..16).map(|i| i % 4 <= i / 4).collect();
                    case.constant("mask", Tensor::new(vec![4, 4], &causal).unwrap())
                }
                _ => case,
            }
        })
        .collect();
    cases.extend(losses());
    cases
}

pub(super) fn graphs() -> Vec<String> {
    cases().iter().map(|case| format!(" {}", case.graph)).collect()
}

fn losses() -> Vec<Case> {
    let shapes = [
        ("vector", "a:5"),
        ("matrix", "a:4x5"),
        ("sequence", "a:2x5x3"),
        ("image", "a:2x4x2x3"),
        ("large", "a:3x4@-80..80"),
    ];
    let mut cases = Vec::new();
    for (shape, weights) in shapes {
        for loss in LOSSES {
            let name = format!("{}_{shape}", loss.as_str());
            cases.push(Case::new(&name, weights, "y = Identity(a)").loss(loss).opset(13));
        }
    }
    cases
}

#[test]
fn every_rule_agrees_with_central_differences() {
    let only = std::env::var("BACKSTITCH_GRADIENT_CASE").unwrap_or_default();
    let mut failures = Vec::new();
    let (mut precise, mut single) = ((0, 0f64), (0, 0f64));
    for case in cases().iter().filter(|case| case.name.contains(&only)) {
        match case.check() {
            Ok(report) => {
                let narrow = report.step.size == Step::NARROW.size;
                let tally = if narrow { &mut precise } else { &mut single };
                *tally = (tally.0 + 1, tally.1.max(report.error));
            }
            Err(failure) => failures.push(failure),
        }
    }
    println!("narrow step: {} cases, largest relative error {:.1e}", precise.0, precise.1);
    println!("wide step: {} cases, largest relative error {:.1e}", single.0, single.1);
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_rule_has_a_case() {
    let text = graphs().concat();
    // DequantizeLinear reads integers and has a test of its own.
    let missing: Vec<&str> = rules()
        .iter()
        .map(|rule| rule.op)
        .filter(|op| {
            !text.contains(&format!(" {op}(")) && !["Ceil", "DequantizeLinear", "Size"].contains(op)
        })
        .collect();
    assert!(missing.is_empty(), "rules without a case: {missing:?}");
}
