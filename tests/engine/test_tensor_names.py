"""The public names: every one of the common vocabulary is there, or refuses with a reason."""

from __future__ import annotations

import pytest

from tinyengine import Tensor, nn, optim
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


def test_public_methods_have_docstrings_where_the_name_does_not_say_all() -> None:
    """Every name of this vocabulary that has more than a one-operand meaning explains itself."""
    explained = "sort argsort topk scatter scatter_reduce interpolate max_pool2d max_unpool2d conv_transpose2d multinomial cumsum"
    assert all(len(getattr(Tensor, n).__doc__ or "") > 30 for n in explained.split())
