"""THE wire format: what a recording holds. Plain data; the TypeScript types are generated from this file and `viewdata.py`
(`python -m tinyviz.wire` writes extension/src/wire.ts, `--check` fails where it drifted).

How to read it:
- Ids are positions: node 7 of a program is entry 7 of each column of its `nodes`; line 3 is entry 3 of each column of `lines`.
- A `Columns` class is a table, column-wise: all its lists have the same length, one entry per row.
- `None` (TypeScript: null) is "not computed" or "not measured", never 0; -1 is "there is none".
- Seconds, bytes and FLOPs are in base units. A FLOP count takes an FMA as 2.

A node keeps its id through every rewriting: `frames` say which node was replaced by which. The graph after frame k is: start from
the stage's `before`; for each frame up to k, users of `replaced` use `by` instead; `added` nodes appear, `removed` ones are gone.
An operand in `src` is looked up through the replacements so far, those of earlier stages included: see `tinyviz.frames.graph_at`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

VERSION = 2
PHASES = ("forward", "backward", "optimizer")

#: what can be selected, and the form of its id (see tinyviz/links.py): line "3"; rule "5"; node "0.17" (program.node);
#: firing "0.2.31" (program.stage.frame or step); decision "0.4"; kernel "0.2"; loop, source and assembly "0.2.12"
#: (program.kernel.line from 0; loop: of the scheduled loops); slot "0.3" (a piece of memory); call "0.2" (program.position in
#: the program: one launch of each run).
SELECTABLE = ("line", "rule", "node", "firing", "decision", "kernel", "loop", "source", "assembly", "slot", "call", "module")


@dataclass
class Columns:
    """A table, column-wise."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))


@dataclass
class Selection:
    kind: str  # one of SELECTABLE
    id: str


@dataclass
class Machine:
    """What the machine was, and its measured peaks."""

    name: str = ""
    cores: int = 0
    # flops_per_second, l1_bytes_per_second… dram_…, launch_seconds, start_seconds; l1_bytes… l3_bytes: what the caches hold
    # (all of them for all cores together); vector_bytes, vector_registers: of a core
    peaks: dict[str, float] = field(default_factory=dict)
    measured: str = ""  # date of the peaks


@dataclass
class SourceFile:
    """The text of one of the user's files or cells."""

    name: str  # shown: "train.py", "In [3]"
    path: str  # below the working folder, else the name alone; empty for a cell
    text: str  # "" when the source is gone
    cell: str = ""  # id of the notebook cell


@dataclass
class Lines(Columns):
    """Lines of the user's code from which nodes came."""

    file: list[int] = field(default_factory=list)  # into files
    line: list[int] = field(default_factory=list)  # from 1
    function: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)  # stripped; "" when the source is gone


@dataclass
class Rules(Columns):
    """Every rewrite rule that fired."""

    stage: list[str] = field(default_factory=list)
    name: list[str] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)
    file: list[str] = field(default_factory=list)  # of the rule's definition, relative to the engine; "" when unknown
    line: list[int] = field(default_factory=list)  # 0 when unknown


@dataclass
class Origins(Columns):
    """Where nodes came from."""

    lines: list[list[int]] = field(default_factory=list)  # the user's stack, innermost first
    module: list[str] = field(default_factory=list)  # "model.fc1"; "" outside of modules
    phase: list[str] = field(default_factory=list)  # one of PHASES


@dataclass
class Nodes(Columns):
    """Every node that ever existed in a program's graph stages: recorded ones first, then those that rules made."""

    op: list[str] = field(default_factory=list)
    dtype: list[str] = field(default_factory=list)
    shape: list[list[int | str]] = field(default_factory=list)  # a symbolic extent is text, with its largest value: "n≤1024"
    src: list[list[int]] = field(default_factory=list)  # operands when the node was made, in order
    arg: list[str] = field(default_factory=list)  # for a buffer its name; "" when the op has none
    phase: list[str] = field(default_factory=list)  # of the first origin
    module: list[str] = field(default_factory=list)  # of the first origin
    lines: list[list[int]] = field(default_factory=list)  # innermost user line of each origin, each once
    origins: list[list[int]] = field(default_factory=list)  # into origins of the program
    forward: list[int] = field(default_factory=list)  # of a backward node: the node whose gradient it serves; -1
    derivative: list[str] = field(default_factory=list)  # of a backward node: the derivative rule that made it; ""


@dataclass
class Layout:
    """Positions of nodes: centre of each box. Ids that stand in no list are not drawn."""

    x: list[float | None]  # by node id
    y: list[float | None]  # by node id; y grows downwards, from operands to users
    width: float
    height: float
    stubs: list[list[int]] = field(default_factory=list)  # [operand, user] edges from forward to backward: drawn as short stubs


@dataclass
class Frames(Columns):
    """Rule firings, in order: what each changed."""

    rule: list[int] = field(default_factory=list)  # into rules of the recording
    replaced: list[int] = field(default_factory=list)  # node id; equal to `by` where the firing changed nothing that is drawn
    by: list[int] = field(default_factory=list)  # node id
    added: list[list[int]] = field(default_factory=list)  # node ids that are in the graph from here on
    removed: list[list[int]] = field(default_factory=list)  # node ids that nothing uses from here on
    seconds: list[float | None] = field(default_factory=list)


@dataclass
class Edits(Columns):
    """Lines of texts that became others; what stands elsewhere stays. Those of one step stand in order, none within another."""

    step: list[int] = field(default_factory=list)
    at: list[int] = field(default_factory=list)  # the first line, from 0, counted before the step
    gone: list[int] = field(default_factory=list)  # how many go
    text: list[list[str]] = field(default_factory=list)  # what comes in their place
    nodes: list[list[list[int]]] = field(default_factory=list)  # by line of `text`: the nodes that it is about; []: not said


@dataclass
class Steps(Columns):
    """What a stage did that makes no new graph, in order. A step changes a text: that of its kernel, which begins as the
    kernel's `loops` and ends as `scheduled`; without a kernel the one of the stage, which begins empty. In `loops` a step changes
    none: it makes a text of a kernel that stands there. In `emit` the text of a kernel begins as `scheduled`, and the last step
    makes the source of it (see tinyviz/steps.py)."""

    rule: list[int] = field(default_factory=list)  # into rules of the recording: the kind of choice, or the primitive
    text: list[str] = field(default_factory=list)  # what was done: "tile(i, 32)", "whole"
    decision: list[int] = field(default_factory=list)  # into decisions: why; -1: none was made about it
    kernel: list[int] = field(default_factory=list)  # -1
    nodes: list[list[int]] = field(default_factory=list)  # nodes whose kernel, loops or memory it changed
    moved: list[list[list[int]]] = field(default_factory=list)  # [from, to, by]: lines of the new text that stay, further in
    seconds: list[float | None] = field(default_factory=list)


@dataclass
class Stage:
    """One stage of the compilation of one program. Stages without graphs have empty `before` and `after`."""

    name: str  # record, differentiate, simplify, fuse, loops, schedule, plan, emit
    question: str  # that it answers
    seconds: float | None
    before: list[int] = field(default_factory=list)  # node ids, operands first
    after: list[int] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)  # of before
    frames: Frames = field(default_factory=Frames)  # of a stage that makes a new graph
    steps: Steps = field(default_factory=Steps)  # of another
    edits: Edits = field(default_factory=Edits)  # what the steps changed
    replayed: bool = False  # frames or steps were derived after the run, by doing the (deterministic) stage again


@dataclass
class Decision:
    """What the engine chose and what it refused."""

    stage: str
    kind: str
    subject: str  # readable: "%4 -> %7", "k2 axis i"
    nodes: list[int]  # node ids that it is about; for a fusion edge [producer, consumer]
    kernel: int  # -1
    verdict: str
    reason: str
    numbers: dict[str, float] = field(default_factory=dict)  # units in the names
    alternatives: dict[str, str] = field(default_factory=dict)  # verdict -> why it was refused


@dataclass
class Shares(Columns):
    """How a kernel's time divides over the user's lines; `share` sums to 1."""

    line: list[int] = field(default_factory=list)  # line id, innermost; -1: no line of the user's
    phase: list[str] = field(default_factory=list)
    origin: list[int] = field(default_factory=list)  # into origins of the program: the whole stack; -1
    share: list[float] = field(default_factory=list)


@dataclass
class Code:
    """A text whose lines link to nodes (loops) or to lines of the scheduled loops (source, assembly)."""

    language: str = ""  # loops, llvm, opencl, python, assembly
    text: list[str] = field(default_factory=list)  # by line, without line ends
    nodes: list[list[int]] = field(default_factory=list)  # by line: node ids; [] for source and assembly
    link: list[int] = field(default_factory=list)  # by line: line of `scheduled` (from 0) that it does; -1; [] for loops


@dataclass
class SpaceLoop:
    """A loop of the iteration space, outer ones first."""

    name: str
    start: int
    stop: int
    step: int
    reduce: bool
    parent: int  # into loops; -1
    line: int  # of the kernel's loops, from 0


@dataclass
class Operand:
    """A buffer that a kernel touches."""

    name: str
    dtype: str
    shape: list[int]
    local: bool  # it lives for one iteration of an outer loop


@dataclass
class Access:
    """One access: `index` per axis, and `mask`, are arithmetic on loop variables in postfix: "i 64 * j +"; "?" depends on
    data."""

    operand: int  # into operands
    write: bool
    line: int  # of the kernel's loops, from 0
    loops: list[int]  # around it, outermost first
    index: list[str]
    mask: str  # "": always


@dataclass
class Space:
    """The iteration space of a kernel before scheduling, and the addresses that each iteration touches."""

    loops: list[SpaceLoop]
    operands: list[Operand]
    accesses: list[Access]


@dataclass
class Trace:
    """What an access really touched in one run on the reference backend, in the order of execution."""

    name: str  # of the input
    kernel: int
    access: int  # into accesses of the kernel's space
    elements: list[int]  # flat element numbers
    count: int  # of all; more than `elements` where those were cut


@dataclass
class Attempt:
    """One schedule that the tuner tried on this machine."""

    schedule: list[str]
    origin: str  # what was changed
    verdict: str  # default, faster, slower, wrong, failed
    reason: str
    seconds: float | None  # median of one launch
    seconds_low: float | None
    seconds_high: float | None
    error: float | None  # largest difference from the reference, relative


@dataclass
class Spread:
    """Seconds of several runs: the median and the quartiles."""

    seconds: float
    low: float
    high: float
    runs: int


@dataclass
class Ablation:
    """What bounds a kernel, measured: the kernel, and what is left of it without the rest. Seconds of one launch."""

    whole: Spread
    loads: Spread  # loads and stores alone
    arithmetic: Spread  # arithmetic alone
    empty: Spread  # nothing
    bound: str  # launch, memory, arithmetic, both, neither
    predicted: str  # what the certificate says limits it
    sentence: str


@dataclass
class Counted:
    """One launch of a kernel, counted while the reference interpreter ran it."""

    flops: int
    bytes_read: int  # distinct global bytes
    bytes_written: int
    bytes_issued: int  # all accesses


@dataclass
class Kernel:
    name: str
    nodes: list[int]  # node ids that it computes
    loops: Code  # after stage loops
    schedule: list[str]  # primitives, in text form
    scheduled: Code  # after stage schedule
    source: Code  # what the backend's compiler got
    assembly: Code
    flops: int | None = None
    flops_expanded: int | None = None  # after transcendentals were expanded
    bytes_read: int | None = None  # distinct global bytes
    bytes_written: int | None = None
    bytes_issued: int | None = None  # all accesses
    exact: bool = True  # false: FLOPs or bytes are upper bounds, because they depend on data
    seconds_predicted: float | None = None
    seconds_predicted_low: float | None = None
    seconds_predicted_high: float | None = None
    bound: str = ""  # what the prediction says limits it: memory, compute, launch
    shares: Shares = field(default_factory=Shares)
    weights: list[float] = field(default_factory=list)  # by `nodes`: the share of its time; [] where it is not known
    missing: str = ""  # why parts of it are not there; ""
    space: Space | None = None
    attempts: list[Attempt] = field(default_factory=list)  # of the tuner, in order; [] where it was not tuned
    tuned: str = ""  # when, ISO 8601
    ablation: Ablation | None = None  # None where nobody asked
    counted: Counted | None = None  # None where nobody asked


@dataclass
class Slot:
    """One piece of memory of a program."""

    name: str
    dtype: str
    shape: list[int | str]  # as of a node
    nbytes: int
    role: str  # input, state, output, temporary
    offset: int | None  # bytes in the arena; None outside of it
    first: int  # first call that touches it
    last: int
    node: int = -1  # the node whose value it holds
    again: str = ""  # of an activation that the gradient reads: its name for being computed again instead of kept
    kept: str = ""  # why it cannot be; ""


@dataclass
class Call:
    """One launch in each run of a program."""

    kernel: int
    slots: list[int]


@dataclass
class Run:
    """One run of a program, with every kernel's time."""

    began: float  # seconds since the recording began
    host_seconds: float  # around the native call
    starts: list[float]  # by call, seconds from the launch; [] where there were no clocks
    seconds: list[float]  # by call
    gap: float | None = None  # seconds on the host since the end of the run before, of whatever program; None: the first of all


@dataclass
class Launches:
    """All runs of a program: some in full, all of them folded."""

    count: int = 0
    runs: list[Run] = field(default_factory=list)  # the first few and the last few
    median: list[float] = field(default_factory=list)  # by call, seconds
    low: list[float] = field(default_factory=list)  # by call, first quartile
    high: list[float] = field(default_factory=list)  # by call, third quartile
    total: list[float] = field(default_factory=list)  # by call, seconds of all runs together
    host_total: float = 0.0  # seconds
    host_median: float | None = None
    host_low: float | None = None
    host_high: float | None = None
    gap_median: float | None = None  # seconds on the host between the end of the run before, of any program, and this one's begin
    gap_low: float | None = None
    gap_high: float | None = None
    gap_total: float = 0.0
    typical: list[float] = field(default_factory=list)  # by call, seconds: the mean of the middle half of the runs by their time
    host_typical: float | None = None  # the same of the whole run: unlike medians, these add up


@dataclass
class Samples(Columns):
    """Figures of one value, sampled run by run; low to norm are of its finite elements, None where there is none."""

    run: list[int] = field(default_factory=list)
    low: list[float | None] = field(default_factory=list)
    high: list[float | None] = field(default_factory=list)
    mean: list[float | None] = field(default_factory=list)
    std: list[float | None] = field(default_factory=list)
    norm: list[float | None] = field(default_factory=list)
    zeros: list[float] = field(default_factory=list)  # share of elements that are 0
    nonfinite: list[int] = field(default_factory=list)  # elements that are NaN or infinite
    subnormal: list[float] = field(default_factory=list)  # share of elements that are not 0 but smaller than 1.2e-38
    dead: list[int | None] = field(default_factory=list)  # units that are 0 for all of the batch; None: not an activation
    histogram: list[list[int]] = field(default_factory=list)  # counts, from low to high; [] where nothing is finite


@dataclass
class Tiles:
    """Small pictures of a value in its last sampled run: its first planes, 0 to 255 from low to high, row by row; -1: an element
    that is not finite."""

    rows: int
    columns: int
    low: float
    high: float
    tiles: list[list[int]]


@dataclass
class Series:
    """One value of a program over its runs."""

    name: str
    kind: str  # weight, gradient, update, activation, softmax, input
    module: str
    node: int  # node id
    shape: list[int]
    samples: Samples
    picture: Tiles | None = None


@dataclass
class Fault:
    """Where a value stopped being finite; found by replaying that run, once."""

    run: int
    what: str  # NaN, Inf; "" when the memory that was given held it already
    node: int  # node id; -1
    line: int  # line id; -1
    kernels: list[int]  # kernels that had a result that was not finite in that run, the one that made it first
    sentence: str


@dataclass
class Bisection:
    """The first step after which the reference computes another value, searched for through the whole compilation."""

    stage: str  # "": no step does
    step: str  # the rule, primitive or kernel
    firing: int  # into the frames or steps of that stage; -1: it has none
    error: float | None  # largest difference after it, relative to the largest value; None: it is not finite
    tolerance: float
    checked: int  # evaluations that were needed
    sentence: str


@dataclass
class Recomputed:
    """Activations computed again for their gradient instead of kept, beside the program as it is."""

    slots: list[int]
    names: list[str]
    refused: dict[str, str]  # name -> why it stays
    kernels_before: int
    kernels: int
    flops_before: int
    flops: int
    peak_before: int  # bytes, predicted
    peak: int
    counted_before: int | None  # bytes, counted in a run; None: it would have taken long
    counted: int | None
    seconds_predicted_before: float
    seconds_predicted: float
    before: Spread  # of one run of the whole program
    after: Spread
    difference: Spread  # run by run
    ulp: float | None  # largest difference of a result; None: a NaN on one side alone
    result: str  # where it is
    pins: list[str]  # the lines of Python that keep it


@dataclass
class Certificate:
    """What was known about the program before it ran."""

    kernels: int | None = None
    launches: int | None = None
    flops: int | None = None
    bytes_read: int | None = None
    bytes_written: int | None = None
    peak_bytes: int | None = None
    seconds: float | None = None
    seconds_low: float | None = None
    seconds_high: float | None = None
    data_dependent: list[str] = field(default_factory=list)  # accesses whose addresses depend on data
    formulas: dict[str, str] = field(default_factory=dict)  # name of a number above -> what it is for other sizes


@dataclass
class Program:
    """One compiled graph: a training step, a forward pass."""

    name: str
    key: str  # content hash of the graph
    nodes: Nodes
    origins: Origins
    recorded: list[int]  # node ids by Graph number of the recorded graph
    simplified: list[int]  # node ids by Graph number of the simplified graph: the numbers that decisions and loops speak of
    roots: list[int]  # of the simplified graph
    layouts: dict[str, Layout]  # recorded, simplified, stages (all nodes that ever were, for stepping)
    stages: list[Stage]
    decisions: list[Decision]
    kernels: list[Kernel]
    calls: list[Call]
    slots: list[Slot]
    arena_bytes: int | None
    peak_bytes: int | None  # counted in a run; None where nobody asked
    certificate: Certificate
    launches: Launches
    backend: str = ""
    values: list[Series] = field(default_factory=list)  # [] where nobody asked for them
    faults: list[Fault] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)  # [] where nobody traced
    bisection: Bisection | None = None  # None where nobody asked
    recomputed: list[Recomputed] = field(default_factory=list)  # what was asked for
    missing: list[str] = field(default_factory=list)  # sentences: what was not recorded, and why


@dataclass
class Realized:
    """What forced a computation, when and where; equal ones are folded."""

    cause: str  # item, numpy, print, bool, step
    line: int  # line id; -1
    program: int  # -1 when no program of the recording ran for it
    began: float  # the first, seconds since the recording began
    count: int = 1


@dataclass
class CacheEvent:
    cache: str
    hit: bool
    key: str
    count: int = 1
    guard: str = ""  # of a miss: which guard failed
    old: str = ""
    new: str = ""
    began: float | None = None  # the first, seconds since the recording began


@dataclass
class Wait:
    """Time in which the host did nothing but wait."""

    reason: str
    seconds: float
    began: float
    count: int = 1


@dataclass
class Recording:
    version: int
    id: str  # content id: sha256 of everything else, 16 hex digits
    title: str
    created: str  # ISO 8601, UTC
    engine: str  # version
    backend: str
    machine: Machine
    files: list[SourceFile]
    lines: Lines
    rules: Rules
    programs: list[Program]
    realized: list[Realized]
    caches: list[CacheEvent]
    waits: list[Wait]
    seconds: float | None = None  # how long was watched
    observer_seconds: float | None = None  # of it, in the recorder, without what stands apart
    observer_apart: dict[str, float] = field(default_factory=dict)  # of it, in the recorder, but not its own: name -> seconds
    missing: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)  # "stages/fuse.py:155", as in rules -> how it is written there


if __name__ == "__main__":
    from tinyviz.wire_ts import main

    sys.exit(main(sys.argv[1:]))
