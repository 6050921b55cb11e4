"""The llvm backend: this machine's CPU, all cores, through LLVM's code generator. A program runs by one native call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tinyengine import hooks, units
from tinyengine.backends import Times, llvm_code, llvm_jit
from tinyengine.backends.llvm_image import Image
from tinyengine.backends.llvm_jit import Target
from tinyengine.program import Call, Program
from tinyengine.runtime import native
from tinyengine.runtime.buffer import Buffer

if TYPE_CHECKING:
    from tinyengine.stages.arithmetic.expand import Step
    from tinyengine.stages.emit import Code


def prepared(program: Program) -> list[Code]:
    """What the kernel of each call becomes, with the constants of its addresses in the pointers that it is given."""
    from tinyengine.stages.arithmetic.displace import displaced  # a program that was restored from disk needs none of this
    from tinyengine.stages.emit import prepare

    out = []
    for c in program.calls:
        aliases = shared_memory(program, c)
        kernel, moved = displaced(c.kernel, aliases)
        out.append(replace(prepare(kernel, aliases, c.like), moved=moved))
    return out


def shared_memory(program: Program, call: Call) -> Mapping[str, str]:
    """Parameters of a call that overlap in memory, each with the first of its group; empty when all are apart."""
    slots = program.slots
    out: dict[str, str] = {}
    for i, (p, s) in enumerate(zip(call.kernel.params, call.slots, strict=True)):
        for q, t in zip(call.kernel.params[:i], call.slots[:i], strict=True):
            a, b = slots[s], slots[t]
            both = a.role == b.role == "temporary"
            if s == t or (both and a.offset < b.offset + b.nbytes and b.offset < a.offset + a.nbytes):
                first = out.setdefault(q.name, q.name)
                if p.name in out:  # it joins two groups
                    out = {k: first if v == out[p.name] else v for k, v in out.items()}
                out[p.name] = first
    return out


class LLVMExecutable:
    """A compiled Program. `codes[i]`: what the kernel of call i became; `decisions`: why it runs on one thread or on many.
    `program` may be asked for later: one that was restored from disk needs it only to explain itself."""

    def __init__(
        self, image: Image, addresses: Mapping[str, int], target: Target, program: Callable[[], Program],
        codes: Sequence[Code] | None = None,
    ) -> None:  # fmt: skip
        self.image, self.target = image, target
        self._program, self._codes, self._given = program, codes, image.given
        self._native = native.NativeProgram(
            image.steps(addresses), image.given, image.offsets, image.moved, image.arena_bytes, image.first_write,
            image.scratch_bytes, llvm_code.runner(), llvm_code.pool,
        )  # fmt: skip

    @property
    def program(self) -> Program:
        return self._program()

    @property
    def codes(self) -> Sequence[Code]:
        if self._codes is None:
            self._codes = prepared(self.program)
        return self._codes

    @property
    def decisions(self) -> tuple[hooks.Decision, ...]:
        threads, calls = llvm_code.pool().threads, self.program.calls
        out = []
        for s in self._native.steps:
            kernel = calls[s.call].kernel.name
            size, count = native.chunks(s, threads)
            trips = float(s.trips or 1)
            numbers = {"threads": float(threads), "trips": trips, "estimated_cycles": s.work, "chunks": float(count)}
            if size:
                chunks = f"{units.some(count, 'chunk')} of {units.some(size, 'iteration')}"
                verdict, reason = "all threads", f"{chunks}, taken by whoever is free"
            elif s.trips is None:
                verdict, reason = "one thread", "the kernel has no parallel loop"
            elif threads == 1 or s.trips == 1:
                verdict, reason = "one thread", "one thread is all there is" if threads == 1 else "the loop runs once"
            else:
                verdict, reason = "one thread", f"less than {native.SMALLEST_SHARE:g} cycles of work: waking a thread costs more"
            out.append(hooks.Decision("emit", "threads", (kernel,), verdict, reason, numbers))
        for c in self.codes:
            if c.moved:
                verdict = ", ".join(f"{name} moved on by {n} bytes" for name, n in c.moved.items())
                reason = "what is constant in its addresses stands in the pointers: kernels that differ in it share code"
                numbers = {"bytes": float(sum(c.moved.values()))}
                out.append(hooks.Decision("emit", "pointers", (c.kernel.name,), verdict, reason, numbers))
        return tuple(out)

    def run(self, buffers: Sequence[Buffer], clocks: bool = False) -> Times | None:
        """Run all kernels on `buffers`, memory for the first `program.given` slots. Raises ValueError for too few buffers,
        IndexError with the message of a failed Check, KeyboardInterrupt when interrupted before the first write in place."""
        if len(buffers) != self._given:
            raise ValueError(f"this program takes {self._given} buffers, {len(buffers)} were given")
        status = self._native.run(buffers, clocks)
        if status:
            self._failed(status)
        if not clocks:
            return None
        starts, seconds = self._native.times(len(self.image.messages))
        return Times(tuple(starts), tuple(seconds))

    def _failed(self, status: int) -> None:
        if status == native.CANCELLED:
            llvm_code.pool().reraise()
            raise KeyboardInterrupt("the program was interrupted before it wrote anything in place")
        step, number = self._native.failed
        raise IndexError(self.image.messages[self._native.steps[step].call][number - 1])

    def cancel(self) -> None:
        """From another thread: stop the run that is going on, unless it has begun to write in place."""
        self._native.cancel()

    def source(self, call: int) -> str:
        """The LLVM IR of a kernel, every instruction with the line of the kernel's text that it came from."""
        return llvm_code.module([self.codes[call]], self.target, debug=True)

    def expansions(self, call: int) -> Iterator[Step]:
        """What a kernel becomes where the machine has no instruction for an op, one rule after the other."""
        from tinyengine.stages.arithmetic import expand

        kernel = self.program.calls[call].kernel
        lower = expand.expander(self.target.scales, self.target.dots)
        return expand.explain(kernel, lower, expand.powers_added(kernel.body))

    def moves(self, call: int) -> Iterator[hooks.Decision]:
        """How a kernel does loads and stores whose lanes are no neighbours, and which loads stand in front of a loop."""
        from tinyengine.backends import llvm_memory, llvm_module

        code = self.codes[call]
        return llvm_module.functions(code, self.target).moves.decisions(code.kernel.name, llvm_memory.MAX_HOISTED)

    def assembly(self, call: int) -> str:
        """The machine's instructions; `.loc 1 N` says that what follows came from line N of the kernel's text."""
        return llvm_jit.assembly(self.source(call), self.target)


class LLVMBackend:
    """`passes`: 0, or the level of LLVM's own optimisation pipeline to run as well, for comparison."""

    name = "llvm"

    def __init__(self, passes: int = 0) -> None:
        self.passes = passes

    def available(self) -> str:
        """Empty when LLVM knows this machine, else one sentence that says why not."""
        try:
            llvm_code.begin()
        except Exception as e:
            return f"LLVM cannot generate code here: {type(e).__name__}: {e}"
        return ""

    def _target(self) -> Target:
        target = llvm_jit.host()
        return Target(target.triple, target.cpu, target.features, self.passes)

    def compile(self, program: Program) -> LLVMExecutable:
        target, codes = self._target(), prepared(program)
        addresses = llvm_code.link(codes, target)
        return LLVMExecutable(Image.of(program, codes), addresses, target, lambda: program, codes)

    def restore(self, data: Mapping[str, Any], program: Callable[[], Program]) -> LLVMExecutable | None:
        """An executable from its image (`LLVMExecutable.image.to_json()`) and the object code on disk; None when some is not
        there. Raises KeyError, TypeError or ValueError for what is no image."""
        image, target = Image.from_json(data), self._target()
        addresses = llvm_code.load([p.symbol for p in image.parts], target)
        return None if addresses is None else LLVMExecutable(image, addresses, target, program)
