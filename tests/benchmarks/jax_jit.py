"""The same in JAX: every case is one jitted function; a training step gives its state to the next (donated)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.benchmarks.by_hand import A, Array, B, C, D
from tests.benchmarks.by_hand_networks import BETA1, BETA2, EPS, HEADS, LAYERS, LR, NORM_EPS, PARAMETERS, SGD_LR, WIDTH, initial


def normed(x: Any, axes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) * lax.rsqrt(var + NORM_EPS), mean, var


def attention(q: Any, k: Any, v: Any, causal: bool = False) -> Any:
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    if causal:
        scores = jnp.where(jnp.tri(q.shape[-2], dtype=bool), scores, -jnp.inf)
    return jax.nn.softmax(scores, -1) @ v


def conv(x: Any, w: Any, padding: int = 1) -> Any:
    return lax.conv_general_dilated(x, w, (1, 1), [(padding, padding)] * 2)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "chain": lambda x: jax.nn.gelu(x * A + B, approximate=True) * C + D,
    "sum": lambda x: x.sum(),
    "softmax": lambda x: jax.nn.softmax(x, -1),
    "layernorm": lambda x: normed(x, (-1,))[0],
    "matmul": lambda a, b: a @ b,
    "conv": conv,
    "attention": attention,
}


def linear(p: Any, name: str, x: Any) -> Any:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def mlp(p: Any, s: Any, x: Any) -> tuple[Any, Any]:
    return linear(p, "fc2", jax.nn.relu(linear(p, "fc1", x))), s


def cnn(p: Any, s: Any, x: Any) -> tuple[Any, Any]:
    state = dict(s)
    for a, b, n in (("conv1", "conv2", "norm1"), ("conv3", "conv4", "norm2")):
        for c in (a, b):
            x = jax.nn.relu(conv(x, p[f"{c}.weight"], 0) + p[f"{c}.bias"].reshape(-1, 1, 1))
        y, mean, var = normed(x, (0, 2, 3))
        count = x.size // x.shape[1]
        state[f"{n}.mean"] = 0.9 * s[f"{n}.mean"] + 0.1 * mean.reshape(-1)
        state[f"{n}.var"] = 0.9 * s[f"{n}.var"] + 0.1 * count / (count - 1) * var.reshape(-1)
        x = y * p[f"{n}.weight"].reshape(-1, 1, 1) + p[f"{n}.bias"].reshape(-1, 1, 1)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return linear(p, "fc", x.reshape(len(x), -1)), state


def gpt(p: Any, s: Any, x: Any) -> tuple[Any, Any]:
    n, t = x.shape
    h = p["letters.weight"][x] + p["places.weight"]

    def norm(name: str, x: Any) -> Any:
        return normed(x, (-1,))[0] * p[f"{name}.weight"] + p[f"{name}.bias"]

    for i in range(LAYERS):
        b = f"blocks.{i}"
        q, k, v = linear(p, f"{b}.qkv", norm(f"{b}.norm1", h)).reshape(n, t, 3, HEADS, WIDTH // HEADS).transpose(2, 0, 3, 1, 4)
        h = h + linear(p, f"{b}.proj", attention(q, k, v, True).transpose(0, 2, 1, 3).reshape(n, t, WIDTH))
        h = h + linear(p, f"{b}.down", jax.nn.gelu(linear(p, f"{b}.up", norm(f"{b}.norm2", h)), approximate=True))
    return linear(p, "head", norm("norm", h)).reshape(n * t, -1), s


NETWORKS: dict[str, Callable[..., tuple[Any, Any]]] = {"mlp": mlp, "cnn": cnn, "gpt": gpt}


def updated(sgd: bool, p: Any, m: Any, v: Any, t: Any, g: Any) -> tuple[Any, Any, Any]:
    each = jax.tree.map
    if sgd:
        return each(lambda p, g: p - SGD_LR * g, p, g), m, v
    m = each(lambda m, g: m + (1 - BETA1) * (g - m), m, g)
    v = each(lambda v, g: v + (1 - BETA2) * (g * g - v), v, g)
    c1, c2 = 1 - BETA1**t, 1 - BETA2**t
    return each(lambda p, m, v: p - LR / c1 * m / (jnp.sqrt(v / c2) + EPS), p, m, v), m, v


def make(work: str, inputs: Mapping[str, Array]) -> tuple[Any, Any]:
    """(call, read), as in `by_hand`."""
    given = {k: jnp.array(v) for k, v in inputs.items()}
    results: list[Any] = []
    if work in FUNCTIONS:
        f, arguments = jax.jit(FUNCTIONS[work]), list(given.values())
        return lambda: f(*arguments).block_until_ready(), lambda: [f(*arguments)]
    network, sgd = NETWORKS[work], work == "mlp"
    parameters = {k: jnp.array(v) for k, v in (inputs if len(inputs) > 2 else initial(work)).items() if k in PARAMETERS[work]}
    moments = {} if sgd else {k: jnp.zeros_like(p) for k, p in parameters.items()}
    seconds = {} if sgd else {k: jnp.zeros_like(p) for k, p in parameters.items()}
    widths = {"norm1": 32, "norm2": 64} if work == "cnn" else {}
    running = {f"{n}.{k}": jnp.full(c, one) for n, c in widths.items() for k, one in (("mean", 0.0), ("var", 1.0))}
    state = [parameters, moments, seconds, running, jnp.zeros(())]

    def loss_of(p: Any, s: Any, x: Any, y: Any) -> tuple[Any, Any]:
        logits, s = network(p, s, x)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean(), s

    def step(state: Any, x: Any, y: Any) -> tuple[Any, Any]:
        p, m, v, s, t = state
        (loss, s), g = jax.value_and_grad(loss_of, has_aux=True)(p, s, x, y)
        p, m, v = updated(sgd, p, m, v, t + 1, g)
        return loss, [p, m, v, s, t + 1]

    jitted = jax.jit(step, donate_argnums=0)

    def call() -> None:
        loss, state[:] = jitted(state, given["x"], given["y"])
        results[:] = [jax.block_until_ready((loss, state))[0]]

    return call, lambda: [*results, *(state[0][k] for k in inputs if k not in "xy")]


def small_op() -> Any:
    """One operation on a small array: dispatched, its result not waited for."""
    x = jnp.zeros(8)
    return lambda: x + 1.0
