"""The public names: every one of the common vocabulary is there, or refuses with a reason."""

from __future__ import annotations

import inspect
import re

import pytest

from tinyengine import Tensor, dtypes, jit, nn, optim, reference
from tinyengine.tensor import keywords
from tinyengine.tensor.refused import REFUSED

FAMILIES = {
    "movement": "T chunk diag diagonal expand flatten flip meshgrid ndim numel permute rearrange repeat repeat_interleave reshape"
    " roll shrink shrink_to size split squeeze stack transpose unflatten unfold unsqueeze view",
    "reduce": "all any max prod sum",
    "creation": "empty empty_like full full_like ones ones_like zeros zeros_like const_like arange linspace eye",
    "dtype": "bfloat16 bitcast bool cast double element_size float half int is_floating_point long short",
    "random": "dropout glorot_uniform kaiming_normal kaiming_uniform multinomial normal rand rand_like randint randn randn_like"
    " randperm scaled_uniform uniform manual_seed",
    "elementwise": "abs acos acosh add asin asinh atan atanh bitwise_and bitwise_not bitwise_or bitwise_xor ceil celu clamp clip"
    " contiguous contiguous_backward copysign cos cosh detach div elu eq erf exp exp2 floor fmod gelu hardsigmoid hardswish"
    " hardtanh isclose isfinite isinf isnan leaky_relu lerp log log10 log2 logaddexp logical_not logsigmoid lshift masked_fill"
    " maximum minimum mish mod mul ne neg pow quick_gelu reciprocal relu relu6 round rshift rsqrt selu sigmoid sign silu sin sinh"
    " softplus softsign sqrt square sub swish tan tanh trunc where",
    "operations": "allclose argmax argmin argsort avg_pool2d batchnorm binary_crossentropy binary_crossentropy_logits cat conv2d"
    " conv_transpose2d cross_entropy cummax cummin cumprod cumsum dot einsum gather gradient interpolate item layernorm linear"
    " log_softmax logcumsumexp logsumexp masked_select matmul max_pool2d max_unpool2d mean min nll_loss nonzero normalize one_hot"
    " pad pad_to qr scaled_dot_product_attention scatter scatter_reduce sequential softmax softmin sort"
    " sparse_categorical_crossentropy std std_mean svd topk tril triu var var_mean",
    "core": "assign backward clone data device dtype from_blob grad is_param item nbytes numpy realize replace shape shard shard_"
    " shard_like to to_ tolist",
    "operators": "__add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__ __truediv__ __rtruediv__"
    " __itruediv__ __floordiv__ __rfloordiv__ __ifloordiv__ __mod__ __rmod__ __imod__ __pow__ __rpow__ __ipow__ __matmul__"
    " __rmatmul__ __imatmul__ __and__ __rand__ __iand__ __or__ __ror__ __ior__ __xor__ __rxor__ __ixor__ __lshift__ __rlshift__"
    " __ilshift__ __rshift__ __rrshift__ __irshift__ __neg__ __invert__ __lt__ __le__ __gt__ __ge__ __eq__ __ne__ __getitem__"
    " __setitem__ __len__ __iter__ __bool__ __int__ __float__ __index__ __contains__",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_is_there(family: str) -> None:
    assert [n for n in FAMILIES[family].split() if not hasattr(Tensor, n)] == []


# keywords of the field -> methods that take them, beside their operands and PyTorch's own keywords
KEYWORDS = {
    "chunks dim": "chunk",
    "offset dim1 dim2": "diagonal",
    "start_dim end_dim": "flatten",
    "axis": "flip cummax cummin cumprod cumsum logcumsumexp",
    "indexing": "meshgrid",
    "dim": "repeat_interleave size squeeze stack unsqueeze cat",
    "shifts dims": "roll",
    "arg": "shrink",
    "sizes dim": "split",
    "dim0 dim1": "transpose",
    "dim sizes": "unflatten",
    "dim size step": "unfold",
    "axis keepdim": "all any max argmax argmin logsumexp mean min",
    "axis keepdim dtype": "prod sum",
    "dtype": "empty empty_like bitcast cast rand randn randn_like dot einsum matmul",
    "fill_value dtype": "full full_like",
    "b dtype": "const_like",
    "start stop step dtype": "arange",
    "start stop steps dtype": "linspace",
    "n m dtype": "eye",
    "p": "dropout",
    "a": "kaiming_normal kaiming_uniform",
    "num_samples replacement": "multinomial",
    "mean std": "normal",
    "low high dtype": "randint uniform",
    "n dtype": "randperm",
    "seed": "manual_seed",
    "alpha": "celu elu",
    "min_ max_": "clamp clip",
    "other": "copysign logaddexp",
    "rounding_mode": "div",
    "approximate": "gelu",
    "alpha beta": "hardsigmoid",
    "min_val max_val": "hardtanh",
    "other rtol atol equal_nan": "isclose allclose",
    "detect_positive detect_negative": "isinf",
    "neg_slope": "leaky_relu",
    "end weight": "lerp",
    "mask value": "masked_fill",
    "alpha gamma": "selu",
    "beta": "softplus",
    "y": "where",
    "dim descending": "argsort sort",
    "kernel_size stride dilation padding ceil_mode count_include_pad": "avg_pool2d",
    "weight bias mean invstd axis": "batchnorm",
    "Y reduction": "binary_crossentropy",
    "Y reduction pos_weight": "binary_crossentropy_logits",
    "weight bias groups stride dilation padding dtype": "conv2d",
    "weight bias groups stride dilation padding output_padding": "conv_transpose2d",
    "Y reduction label_smoothing": "cross_entropy",
    "dim index": "gather",
    "gradient": "gradient",
    "size mode align_corners": "interpolate",
    "axis eps": "layernorm",
    "weight bias dtype": "linear",
    "axis dtype": "log_softmax softmax softmin",
    "mask size fill_value": "masked_select",
    "kernel_size stride dilation padding ceil_mode return_indices": "max_pool2d",
    "indices kernel_size stride dilation padding output_size": "max_unpool2d",
    "Y weight ignore_index reduction": "nll_loss",
    "size fill_value": "nonzero",
    "p dim eps": "normalize",
    "num_classes": "one_hot",
    "padding mode value": "pad",
    "value": "pad_to",
    "key value attn_mask dropout_p is_causal enable_gqa": "scaled_dot_product_attention",
    "dim index src reduce": "scatter",
    "dim index src reduce include_self": "scatter_reduce",
    "ll": "sequential",
    "Y ignore_index label_smoothing reduction": "sparse_categorical_crossentropy",
    "axis keepdim correction": "std std_mean var var_mean",
    "full_matrices": "svd",
    "k dim largest sorted_": "topk",
    "diagonal": "tril triu",
}


@pytest.mark.parametrize("names", KEYWORDS)
def test_methods_take_the_keywords_of_the_field(names: str) -> None:
    for method in KEYWORDS[names].split():
        taken = {*inspect.signature(getattr(Tensor, method)).parameters, *[k.split()[0] for k in keywords.keywords(method)]}
        assert set(names.split()) <= taken, method


def test_other_names_of_arguments_mean_the_same() -> None:
    x = Tensor([[1.0, -2.0], [3.0, 4.0]])
    pairs = [
        (x.leaky_relu(neg_slope=0.5), x.leaky_relu(0.5)),
        (x.clamp(min_=0, max_=2), x.clamp(0, 2)),
        (x.clip(max_=0), x.clip(max=0)),
        (x.layernorm(axis=0), x.layernorm(0)),
        (x.softmax(axis=0, dtype="float64"), x.double().softmax(0)),
        (x.split(sizes=1, dim=1)[1], x.split(1, 1)[1]),
        (x.topk(1, sorted_=True)[0], x.topk(1)[0]),
        (x.flip(axis=1), x.flip(dims=(1,))),
        ((x > 0).where(x=x, y=0), (x > 0).where(x, 0)),
        (x.matmul(x, dtype="float64"), x.double() @ x.double()),
        (Tensor.einsum("ij->i", x, dtype="float64"), x.double().sum(1)),
        (Tensor.linspace(0, stop=1, steps=3), Tensor.linspace(0, 1, 3)),
        (x.cross_entropy(Y=Tensor([0, 1])), x.cross_entropy(Tensor([0, 1]))),
        (x.pad_to(3, 2, value=7.0), x.pad((0, 0, 0, 1), value=7.0)),
        (Tensor.zeros(2, device="CPU"), Tensor.zeros(2)),
        (x.const_like(b=3.0), x.full_like(3.0)),
        (x.shrink(arg=[(0, 1), None]), x[:1]),
        (x.masked_select(x > 0, size=5, fill_value=-1), Tensor([1.0, 3.0, 4.0, -1.0, -1.0])),
        ((x > 0).nonzero(size=4, fill_value=9), Tensor([[0, 0], [1, 0], [1, 1], [9, 9]])),
        (x.avg_pool2d(1, dilation=2), x),
        (jit(lambda y: y.masked_select(y > 2, size=2))(x), Tensor([3.0, 4.0])),
    ]
    for k, (a, b) in enumerate(pairs):
        assert a.dtype is b.dtype and a.tolist() == b.tolist(), k
    with pytest.raises(TypeError, match="neg_slope and negative_slope are the same argument"):
        x.leaky_relu(neg_slope=0.1, negative_slope=0.2)
    with pytest.raises(RuntimeError, match="no device 'cuda'"):
        Tensor.ones(2, device="cuda")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why_and_where(name: str) -> None:
    assert any(name in names.split() for names in FAMILIES.values())
    with pytest.raises(NotImplementedError, match=rf"Tensor\.{name} is not supported: .{{20,}}\n  at test_tensor_names"):
        getattr(Tensor([1.0]), name)()
    assert REFUSED[name] in (getattr(Tensor, name).__doc__ or "")


def test_layers_and_optimizers() -> None:
    layers = (
        "BatchNorm BatchNorm1d BatchNorm2d BatchNorm3d Conv1d Conv2d ConvTranspose1d ConvTranspose2d Linear GroupNorm"
        " InstanceNorm LayerNorm LayerNorm2d RMSNorm Embedding LSTMCell"
    )
    assert [n for n in layers.split() if not hasattr(nn, n)] == []
    assert [
        n for n in ["SGD", "Muon", "LARS", "Adam", "AdamW", "LAMB", "lr_scheduler", "OptimizerGroup"] if not hasattr(optim, n)
    ] == []


def test_short_names_of_dtypes() -> None:
    assert dtypes.half is dtypes.float16 and dtypes.bool is dtypes.bool_ and dtypes.uchar is dtypes.uint8
    with pytest.raises(AttributeError, match=r"module 'tinyengine.dtypes' has no attribute 'quarter'"):
        _ = dtypes.quarter


def test_the_reference_is_what_the_docstrings_say() -> None:
    assert reference.PAGE.read_text() == reference.page(), (
        "docs/reference.md is stale: PYTHONPATH=engine python -m tinyengine.reference"
    )


def test_the_reference_lists_every_name_with_a_sentence() -> None:
    page = reference.page()
    for family in FAMILIES:
        for n in FAMILIES[family].split():
            assert re.search(rf"`(Tensor\.)?{n}[`(]", page), n
    names = [n for module in (nn, optim, optim.lr_scheduler) for n in module.__all__ if n != "lr_scheduler"]
    for n in (*names, "jit", "TinyJit", "Device", "Context", "manual_seed"):
        assert re.search(rf"^- `{n}[`(]", page, re.MULTILINE), n
    bare = [line for line in page.splitlines() if re.search(r"— *$", line)]
    assert bare == []
    for n, why in REFUSED.items():
        assert f"- `Tensor.{n}` — {why}" in page
