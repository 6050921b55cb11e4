# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The whole game
#
# What happens between a line of tensor code and the processor? This notebook follows three lines all the way down. Then it
# trains a real network and looks at it in the same way.
#
# Each part asks you to **predict** first. Write your guess in place of `None`, run the cell, and compare. A wrong guess is the
# useful kind: the text below it explains the gap. Every number that you will see was recorded by the engine while this notebook
# ran.

# %%
# %load_ext tinyviz
import numpy as np

import tinyviz as tv
from tinyviz import Tensor, data, jit, manual_seed, nn, optim


def reveal(what, guess, answer):
    """The answer, beside your guess."""
    print(f"{what}: {answer:,}" + ("" if guess is None else f" (your guess: {guess:,})"))


# %% [markdown]
# ## 1. Three lines
#
# `x` is a batch of 128 rows, `w` and `b` are a layer's weights and bias. The three lines in the `with` block are a layer, its
# activation, and a sum.
#
# **Predict:** when the block has ended, how many kernels have run? (A kernel is one compiled piece of a program: some loops
# over some arrays.)

# %%
kernels_run = None  # your guess

rng = np.random.default_rng(0)
x = Tensor(rng.standard_normal((128, 64), np.float32))
w = Tensor(rng.standard_normal((64, 32), np.float32))
b = Tensor(rng.standard_normal(32, np.float32))

with tv.watch("three lines") as rec:
    z = x @ w + b
    y = z.relu()
    total = y.sum()

reveal("kernels run", kernels_run, sum(p.launches.count for p in rec.programs))

# %% [markdown]
# None. A `Tensor` is *lazy*: the lines only recorded what is wanted, as a graph. Each node is one primitive operation with the
# shape of its result. Nothing is computed until somebody asks for a value.
#
# `tv.lower` shows what the compiler would do with the graph, without running it.

# %%
c = tv.lower(total)
c.graph

# %% [markdown]
# There is no `matmul` in the graph. A matrix product is a multiplication of two *views*, `(128, 32, 64)` each, and a sum over
# the last axis. `reshape`, `permute` and `expand` move no data: they only say where an element is found.
#
# ## 2. From operations to kernels
#
# NumPy would run this as four passes over memory: product, addition, maximum, sum. Each writes its result to memory and the
# next reads it back.
#
# **Predict:** how many kernels will this engine make of it?

# %%
kernels_planned = None  # your guess

reveal("kernels", kernels_planned, len(c.kernels))
c.view("fusion")

# %% [markdown]
# For every value the engine decides where it is kept:
#
# - *inline*: computed where it is used, and kept nowhere;
# - *at loop*: computed once per iteration of a loop of its user, and kept in a register or in the cache;
# - *whole*: stored in memory, and read from there.
#
# Computing values in one kernel that could have been stored between two is called *fusion*. Each decision above has a reason
# and the numbers that were compared, and so has each alternative that was refused.
#
# ## 3. One kernel
#
# Here is the first kernel, before any optimisation: plain loops, one number at a time.

# %%
print(c.kernels[0].loops)

# %% [markdown]
# The next stage chooses a *schedule*: the order of the loops, how many numbers are computed at once, how many cores take part.
# It is a short list of steps. None of them changes what is computed.

# %%
for primitive in c.kernels[0].schedule:
    print(primitive)

print()
print(c.kernels[0].scheduled)

# %% [markdown]
# `ji : ji + 16` means the sixteen numbers from `ji` on, at once, in one vector register (a processor with narrower registers gets
# another number there). An *accumulator* (`acc…`) stays in registers during the whole sum.
#
# The last stage hands LLVM the same loops in its own language. Below: the loops, the source and the machine instructions side
# by side. Equal line numbers belong together.

# %%
c.view("kernel")

# %% [markdown]
# ## 4. The certificate
#
# **Predict:** how many floating-point operations (FLOPs) does one run need? Count a multiplication as one and an addition as
# one. The matrix product alone has 128 × 32 results with 64 products each.

# %%
flops = None  # your guess

reveal("FLOPs", flops, c.certificate.flops)
print()
print(c.certificate)

# %% [markdown]
# 128 × 32 × 64 products and as many additions make 524,288. Then 4,096 additions of the bias, 4,096 maxima and the last sum.
#
# Nothing has run yet, and the certificate knows the FLOPs, the bytes that each kernel reads and writes, and the peak memory.
# They are counted from the loops: a loop's bounds are known before it runs. Only the time is an estimate, with an error bar.
#
# Now it runs. `.item()` asks for the value.

# %%
with tv.watch("three lines, run") as rec:
    value = total.item()

exact = np.maximum(x.numpy().astype(np.float64) @ w.numpy() + b.numpy(), 0).sum()
print(f"the engine: {value:.3f}, NumPy in float64: {exact:.3f}")
rec.view("timeline")

# %% [markdown]
# The table *ledger* compares what was predicted before with what was measured after. A first run is slow: memory and code are
# cold. The measured side of FLOPs and bytes is a dash: a processor does not tell them. An interpreter can. It runs the same loops
# one operation at a time, and counts each.
#
# **Predict:** how far is the certificate from what is counted?

# %%
rec.count()

# %% [markdown]
# Not by one operation, and not by one byte.
#
# ## 5. What can be known before the run
#
# *All compute and memory accesses of such a program are statically computable.* Which elements a kernel touches, and in which
# order, does not depend on the numbers in them. We can test that too: interpret the kernel twice, on different random inputs, and
# write down every access.

# %%
from tinyengine.backends.reference import trace


def accesses(kernel, seed):
    """Every element of memory that the kernel reads or writes, in order, when it runs on random inputs."""
    rng = np.random.default_rng(seed)
    memory = {}
    for p in kernel.params:
        numbers = rng.standard_normal(p.size) if p.dtype.is_float else rng.integers(0, 10, p.size)
        memory[p.name] = numbers.astype(p.dtype.numpy)
    return [(t.buffer, t.write, t.elements.tolist()) for t in trace(kernel, memory)]


kernel = c.kernels[0].scheduled
one, other = accesses(kernel, seed=1), accesses(kernel, seed=2)
print(f"{sum(len(elements) for _, _, elements in one):,} accesses; the same on other inputs: {one == other}")

# %% [markdown]
# **Predict:** is it the same for a table that is read at the places that another tensor names, `table[tokens]`?

# %%
table, tokens = Tensor(np.eye(10, dtype=np.float32)), Tensor(np.array([3, 1, 4, 1, 5], np.int32))
gather = tv.lower(table[tokens])
kernel = gather.kernels[0].scheduled
print("the same on other inputs:", accesses(kernel, seed=1) == accesses(kernel, seed=2))
print()
print(gather.certificate)

# %% [markdown]
# No: here an address *is* data. The certificate says which buffer, and why. Such places are rare. In the network below there is
# one: the loss looks up the probability of the right answer.
#
# ## 6. A network that reads digits
#
# 1,797 handwritten digits of 8 × 8 pixels, collected at Boğaziçi University (they come with scikit-learn). The network sees
# 1,438 of them. The rest is for the test.

# %%
images, labels, test_images, test_labels = data.digits()

for row in images[0].reshape(8, 8):
    print("".join(" .:-=+*#%@"[int(v * 9)] * 2 for v in row))
print("label:", labels[0])

# %% [markdown]
# The network has one hidden layer of 256 units. A training step computes the loss, its gradients, and new parameters by Adam.
# `@jit` records the whole step once; later calls run the compiled program.

# %%
manual_seed(0)


class Network(nn.Module):
    def __init__(self):
        self.fc1 = nn.Linear(64, 256)
        self.fc2 = nn.Linear(256, 10)

    def forward(self, x):
        h = self.fc1(x).relu()
        return self.fc2(h)


model = Network()
optimizer = optim.Adam(model.parameters(), lr=1e-3)


@jit
def step(x, y):
    optimizer.zero_grad()
    loss = model(x).cross_entropy(y)
    loss.backward()
    optimizer.step()
    return loss


# %% [markdown]
# **Predict**, for one step on 128 images: how many nodes does the graph have, with gradients and optimizer? How many kernels
# are left of it?

# %%
nodes, kernels = None, None  # your guesses

lowered = tv.lower(step, Tensor(images[:128]), Tensor(labels[:128]))
reveal("nodes", nodes, len(lowered.graph))
reveal("kernels", kernels, len(lowered.kernels))
print()
print(lowered.certificate)

# %% [markdown]
# This table was made before the step ran. Its FLOPs are the same for every step: the shapes do not change.
#
# ### What is a petaFLOP?
#
# A petaFLOP is 10¹⁵ floating-point operations: an amount of work. (A petaFLOP **per second** is a rate. The words are often
# mixed up.)
#
# **Predict:** how many of these training steps make one petaFLOP?

# %%
steps = None  # your guess

PETAFLOP = 10**15
reveal("FLOPs of one step", None, lowered.certificate.flops)
reveal("steps in one petaFLOP", steps, round(PETAFLOP / lowered.certificate.flops))

# %% [markdown]
# ### Train
#
# 60 passes over the training images, 11 steps each, and everything is recorded.

# %%
with tv.watch("training on digits") as rec:
    for _ in range(60):
        for x, y in data.batches(images, labels, size=128):
            loss = step(Tensor(x), Tensor(y))

accuracy = (model(Tensor(test_images)).argmax(1) == Tensor(test_labels)).float().mean().item()
print(f"loss {loss.item():.3f}, test accuracy {accuracy:.1%}")

# %% [markdown]
# The explorer shows the whole recording: your lines at the left, the kernels that serve them at the right. Select a line, and
# everything that belongs to it lights up: in the graph, in the fusion decisions, in the source, on the time axis.

# %%
rec

# %% [markdown]
# ### The ledger
#
# **Predict:** which of your lines takes the most time: a line of the model, `loss.backward()` or `optimizer.step()`?

# %%
rec.view("lines")

# %% [markdown]
# `loss.backward()` hardly counts: a gradient belongs to the line whose derivative it is, in the column *backward*. A kernel
# that is fused from several lines is split between them by what each costs.
#
# Predicted before, measured after, for the whole step and for each kernel:

# %%
rec.view("timeline")

# %%
program = max(rec.programs, key=lambda p: p.launches.count)
seconds = program.launches.host_median
rate = lowered.certificate.flops / seconds
print(f"{program.launches.count} steps, {seconds * 1e6:,.0f} µs each: {rate / 1e9:.1f} GFLOP/s")
print(f"one petaFLOP at this rate: {PETAFLOP / rate / 3600:.1f} hours")
peak = rec.data.machine.peaks["flops_per_second"]
print(f"the measured peak of this machine: {peak / 1e9:.0f} GFLOP/s; this network reaches {rate / peak:.0%} of it")

# %% [markdown]
# A machine of one petaFLOP *per second* would do the same work in one second.

# %% [markdown]
# ## 7. Exercise: fewer kernels
#
# `standardize` gives each row mean 0 and variance 1. It computes the right thing, but somebody wrote `.contiguous()` behind
# each line, which asks for the value to be stored whole. Change the function so that it is **one kernel** that reads each
# element of `x` once. The check counts; it does not look at the clock.


# %%
def standardize(x):
    mean = x.mean(1, keepdim=True).contiguous()
    centred = (x - mean).contiguous()
    variance = (centred * centred).mean(1, keepdim=True).contiguous()
    return centred / (variance + 1e-5).sqrt()


# %%
def check(f):
    """Counts kernels and bytes of f on 512 rows of 96, and compares its result with NumPy."""
    given = np.random.default_rng(1).standard_normal((512, 96), np.float32)
    result = f(Tensor(given))
    cost = tv.lower(result).certificate
    centred = given - given.mean(1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    right = np.allclose(result.numpy(), wanted, atol=1e-4)
    goals = {
        "the result is right": right,
        f"1 kernel (yours: {cost.launches})": cost.launches == 1,
        f"reads {given.nbytes:,} bytes (yours: {cost.bytes_read:,})": cost.bytes_read == given.nbytes,
        f"writes {given.nbytes:,} bytes (yours: {cost.bytes_written:,})": cost.bytes_written == given.nbytes,
    }
    for goal, reached in goals.items():
        print("✓" if reached else "✗", goal)
    return all(goals.values())


solved = check(standardize)

# %% [markdown]
# ## 8. Your own code
#
# `%%watch` records a cell and shows the explorer below it. Replace the lines with your own.

# %%
# %%watch
a = Tensor(np.random.default_rng(2).standard_normal((256, 256), np.float32))
(a @ a / 16).softmax(-1).max().item()
