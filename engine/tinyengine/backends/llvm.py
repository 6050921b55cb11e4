"""The llvm backend: this machine's CPU, all cores, through LLVM's code generator. A program runs by one native call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinyengine import dtypes, hooks
from tinyengine.backends import Times, llvm_code, llvm_jit
from tinyengine.backends.llvm_jit import Target
from tinyengine.backends.llvm_module import module
from tinyengine.program import Call, Program
from tinyengine.runtime import native
from tinyengine.runtime.buffer import Buffer
from tinyengine.stages.emit import Code, prepare


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
    """A compiled Program. `codes[i]`: what the kernel of call i became; `decisions`: why it runs on one thread or on many."""

    def __init__(self, program: Program, target: Target) -> None:
        self.program, self.target = program, target
        self._given = program.given
        self.codes: list[Code] = [prepare(c.kernel, shared_memory(program, c)) for c in program.calls]
        addresses = llvm_code.link(self.codes, target)
        self._arena = Buffer(max(1, program.arena_bytes), dtypes.uint8, "arena")
        slots = [self._arena.address + s.offset if s.role == "temporary" else 0 for s in program.slots]
        steps: list[native.Step] = []
        first_write = None
        for n, (call, code) in enumerate(zip(program.calls, self.codes, strict=True)):
            outputs = set(call.kernel.outputs)
            written = [program.slots[s] for p, s in zip(call.kernel.params, call.slots, strict=True) if p.name in outputs]
            in_place = any(s.role == "state" for s in written)
            if in_place and first_write is None:
                first_write = len(steps)
            which = tuple(8 * s for s in call.slots)
            for i, part in enumerate(code.parts):
                trips = part.trips if part.loop is not None else None
                steps.append(native.Step(addresses[code.part_symbol(i)], which, trips, code.work[i], n))
        scratch = max([c.scratch_bytes for c in self.codes], default=0)
        first = len(steps) if first_write is None else first_write
        self._native = native.NativeProgram(steps, slots, program.given, first, scratch, llvm_code.runner(), llvm_code.pool)

    @property
    def decisions(self) -> tuple[hooks.Decision, ...]:
        threads = llvm_code.pool().threads
        out = []
        for s in self._native.steps:
            kernel = self.codes[s.call].kernel.name
            size, count = native.chunks(s, threads)
            trips = float(s.trips or 1)
            numbers = {"threads": float(threads), "trips": trips, "estimated_cycles": s.work, "chunks": float(count)}
            if size:
                verdict, reason = "all threads", f"{count} chunks of {size} iterations, taken by whoever is free"
            elif s.trips is None:
                verdict, reason = "one thread", "the kernel has no parallel loop"
            elif threads == 1 or s.trips == 1:
                verdict, reason = "one thread", "one thread is all there is" if threads == 1 else "the loop runs once"
            else:
                verdict, reason = "one thread", f"less than {native.SMALLEST_SHARE:g} cycles of work: waking a thread costs more"
            out.append(hooks.Decision("emit", "threads", (kernel,), verdict, reason, numbers))
        return tuple(out)

    def run(self, buffers: Sequence[Buffer], clocks: bool = False) -> Times | None:
        """Run all kernels on `buffers`, memory for the first `program.given` slots. Raises ValueError for too few buffers,
        IndexError with the message of a failed Check, KeyboardInterrupt when interrupted before the first write in place."""
        if len(buffers) != self._given:
            raise ValueError(f"program {self.program.name} takes {self._given} buffers, {len(buffers)} were given")
        status = self._native.run(buffers, clocks)
        if status == native.CANCELLED:
            raise KeyboardInterrupt(f"program {self.program.name} was interrupted before it wrote anything in place")
        if status == native.CHECK_FAILED:
            step, number = self._native.failed
            raise IndexError(self.codes[self._native.steps[step].call].messages[number - 1])
        if not clocks:
            return None
        starts, seconds = self._native.times(len(self.codes))
        return Times(tuple(starts), tuple(seconds))

    def cancel(self) -> None:
        """From another thread: stop the run that is going on, unless it has begun to write in place."""
        self._native.cancel()

    def source(self, call: int) -> str:
        """The LLVM IR of a kernel, every instruction with the line of the kernel's text that it came from."""
        return module([self.codes[call]], self.target, debug=True)

    def assembly(self, call: int) -> str:
        """The machine's instructions; `.loc 1 N` says that what follows came from line N of the kernel's text."""
        return llvm_jit.assembly(self.source(call), self.target)


class LLVMBackend:
    """`passes`: 0, or the level of LLVM's own optimisation pipeline to run as well, for comparison."""

    name = "llvm"

    def __init__(self, passes: int = 0) -> None:
        self.passes = passes

    def available(self) -> str:
        """Empty when a tiny kernel was built and run, else one sentence that says why not."""
        try:
            llvm_code.runner()
            llvm_code.pool()
        except Exception as e:
            return f"LLVM cannot generate code here: {type(e).__name__}: {e}"
        return ""

    def compile(self, program: Program) -> LLVMExecutable:
        target = llvm_jit.host()
        return LLVMExecutable(program, Target(target.triple, target.cpu, target.features, self.passes))
