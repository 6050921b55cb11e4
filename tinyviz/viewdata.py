"""What each view draws, as wire data: a `Page` holds the recording and, per view, the small things computed from it in Python.

Colours are never the only mark: `Category` carries a colour for light and for dark and a letter. Numbers are None where missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tinyviz.wire import Attempt, Code, Columns, Counted, Recomputed, Recording, Selection


@dataclass
class Category:
    """One entry of a legend: one colour and one letter = one meaning, in every view."""

    name: str
    label: str
    light: str  # #rrggbb on light ground
    dark: str
    mark: str  # a letter or sign


@dataclass
class ViewData:
    view: str
    title: str
    howto: list[str]  # "how to read this", three lines
    legend: list[Category]
    program: int  # which program of the recording it shows; -1: none
    error: str = ""  # why the view could not be made; then only `text` of the page is to be shown


@dataclass
class Figure:
    """One number of a summary."""

    name: str
    unit: str  # "", s, bytes, flops
    predicted: float | None
    measured: float | None
    note: str = ""


@dataclass
class LineRow:
    """One line of the user's code."""

    line: int  # line id; -1: not attributed
    seconds: float | None  # per run of the program, measured
    seconds_predicted: float | None
    share: float | None  # of the measured time (predicted, where nothing was measured)
    by_phase: dict[str, float | None]  # phase -> seconds (measured, else predicted)
    bytes_read: float | None
    bytes_written: float | None
    flops: float | None
    kernels: list[int]


@dataclass
class KernelRow:
    """One kernel, all its launches in one run together."""

    kernel: int
    calls: list[int]
    seconds: float | None  # measured median
    seconds_low: float | None
    seconds_high: float | None
    seconds_predicted: float | None
    share: float | None
    flops: int | None
    bytes_read: int | None
    bytes_written: int | None
    bound: str
    phases: list[str]  # the one with most of its time first


@dataclass
class Box:
    """A module (or kernel) drawn as one box; `parent` -1 at the top."""

    name: str
    kind: str  # module, kernel, phase
    parent: int
    nodes: list[int]  # of itself, without its children's
    x: float  # centre
    y: float
    width: float
    height: float


@dataclass
class OverviewData(ViewData):
    figures: list[Figure] = field(default_factory=list)
    lines: list[LineRow] = field(default_factory=list)
    kernels: list[KernelRow] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)  # top modules
    edges: list[list[int]] = field(default_factory=list)  # [from box, to box]
    width: float = 0.0  # of the picture of boxes
    height: float = 0.0


@dataclass
class NodeGroup:
    """A module, or another part of the program that its nodes are drawn in."""

    name: str  # within its parent
    kind: str  # module, line, optimizer, parameter
    parent: int  # -1 at the top
    nodes: int  # with those of groups within
    line: int = -1  # line id, of a group that is a line


@dataclass
class GraphData(ViewData):
    layout: str = "recorded"  # which of the program's layouts
    drawn: list[int] = field(default_factory=list)  # node ids
    boxes: list[Box] = field(default_factory=list)  # modules around their nodes
    groups: list[NodeGroup] = field(default_factory=list)  # outer groups first
    home: list[int] = field(default_factory=list)  # by position in `drawn`: its innermost group; -1
    overlays: dict[str, list[float | None]] = field(default_factory=dict)  # time, bytes, FLOPs, memory -> by position in `drawn`
    measured: bool = False  # whether the times are measured
    dtypes: list[Category] = field(default_factory=list)  # those that occur, most nodes first; names "dtype float32"
    around: int = -1  # the node whose neighbourhood is shown first; -1: all of it


@dataclass
class StageRow:
    stage: int  # of the program
    name: str
    question: str
    seconds: float | None
    firings: int | None  # or steps; None: not recorded
    nodes_before: int | None
    nodes_after: int | None
    decisions: int
    changed: bool | None
    rules: list[int] = field(default_factory=list)  # rule ids, most firings first
    counts: list[int] = field(default_factory=list)  # firings of each of `rules`
    times: list[float | None] = field(default_factory=list)  # seconds of all firings of each of `rules`


@dataclass
class StagesData(ViewData):
    rows: list[StageRow] = field(default_factory=list)
    node: int = -1  # node id that is asked about: where it came from, what became of it; -1
    firing: list[int] = field(default_factory=list)  # [stage, step] that is asked about; []: none
    rule: int = -1  # rule id whose firings are asked about; -1
    untimed: str = ""  # why the stages have no times; "" where they have


@dataclass
class FusionEdge:
    """One edge producer -> consumer; reason, numbers and alternatives are those of its decision."""

    producer: int  # node id
    consumer: int
    verdict: str  # inline, at loop, whole
    where: str  # loop, for "at loop"
    bytes_saved: float | None
    flops_recomputed: float | None
    decision: int  # into decisions of the program
    kernel: int  # of the consumer; -1


@dataclass
class FusionData(ViewData):
    edges: list[FusionEdge] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)  # decisions that are about no edge (joining kernels)
    counts: dict[str, int] = field(default_factory=dict)  # verdict -> edges


@dataclass
class KernelData(ViewData):
    kernel: int = 0  # shown first
    rows: list[KernelRow] = field(default_factory=list)
    decisions: list[list[int]] = field(default_factory=list)  # by kernel: schedule decisions


@dataclass
class Segment(Columns):
    """Bars of a lane. Host: what the user's thread did; kernels: launches of the median run."""

    lane: list[str] = field(default_factory=list)  # host, kernels, compile
    label: list[str] = field(default_factory=list)
    start: list[float] = field(default_factory=list)  # seconds
    seconds: list[float] = field(default_factory=list)
    category: list[str] = field(default_factory=list)  # a name of the legend
    call: list[int] = field(default_factory=list)  # -1
    line: list[int] = field(default_factory=list)  # line id; -1


@dataclass
class LedgerRow:
    """One prediction beside its measurement."""

    name: str
    unit: str
    kernel: int  # -1: of the whole program
    predicted: float | None
    predicted_low: float | None
    predicted_high: float | None
    measured: float | None
    measured_low: float | None
    measured_high: float | None
    agrees: bool | None  # None: one side is missing


@dataclass
class TimelineData(ViewData):
    run: Segment = field(default_factory=Segment)  # one run: lanes host and kernels; time 0 = its launch
    recording: Segment = field(default_factory=Segment)  # the whole recording, time 0 = its begin
    compile: Segment = field(default_factory=Segment)  # stages, one after the other
    ledger: list[LedgerRow] = field(default_factory=list)
    runs: int = 0


@dataclass
class LinesData(ViewData):
    rows: list[LineRow] = field(default_factory=list)
    total_seconds: float | None = None
    measured: bool = False  # whether seconds are measured


@dataclass
class Buffer:
    """One piece of memory over the calls of a program."""

    slot: int
    category: str  # phase of the value that it holds
    kernel: int  # that makes its value; -1: it is given
    line: int  # line id of its value; -1
    module: str  # of its value; ""
    at_peak: bool  # alive at the call with the most temporaries alive; given memory always is


@dataclass
class Holder:
    """Who holds memory at the peak: a role, kernel, line or module."""

    by: str  # role, kernel, line, module
    name: str
    id: int  # kernel or line id; -1
    buffers: int
    nbytes: int
    share: float | None  # of everything alive at the peak


@dataclass
class MemoryData(ViewData):
    buffers: list[Buffer] = field(default_factory=list)  # in the order of the program's slots
    live: list[int] = field(default_factory=list)  # by call: bytes of temporaries alive
    peak_call: int = -1  # the first call with the most temporaries alive; -1: there is none
    given_bytes: int | None = None  # inputs, state and outputs
    arena_bytes: int | None = None
    arena_live: int | None = None  # temporaries alive at the peak; the rest of the arena is gaps
    peak_bytes: int | None = None  # predicted: given memory and the arena
    peak_measured: int | None = None
    holders: list[Holder] = field(default_factory=list)


@dataclass
class Roof:
    """A peak of the machine: all cores together."""

    name: str  # L1, L2, L3, memory, arithmetic
    rate: float  # bytes per second; for arithmetic FLOPs per second
    holds: float | None  # bytes of that cache level, all cores; None: not known, or memory


@dataclass
class RoofPoint:
    """One kernel; seconds are of all its launches in one run."""

    kernel: int
    category: str  # the phase that it mostly works for
    flops: int | None
    nbytes: int | None  # distinct bytes, read and written
    intensity: float | None  # FLOPs per byte
    rate: float | None  # FLOPs per second, measured
    rate_predicted: float | None
    roof: str  # the nearest roof that is not slower than the kernel: a name of the roofs; ""
    seconds_roof: float | None  # at that roof
    seconds: float | None  # measured
    seconds_predicted: float | None
    wasted: float | None  # seconds above the roof: measured, or predicted where nothing was measured


@dataclass
class Diagnosis:
    """One coded finding about a kernel or the program, rendered from recorded numbers alone."""

    code: str  # memory-bound, launch-bound, strided…: see `tinyviz.findings`
    kernel: int  # -1: the program
    sentence: str
    evidence: str
    gain: float | None  # seconds of one run, at most
    decision: int  # into decisions of the program; -1
    also: list[int] = field(default_factory=list)  # more kernels of which the same is true


@dataclass
class RooflineData(ViewData):
    roofs: list[Roof] = field(default_factory=list)
    points: list[RoofPoint] = field(default_factory=list)  # most wasted time first
    diagnoses: list[Diagnosis] = field(default_factory=list)  # largest gain first
    measured: bool = False
    peaks: str = ""  # where the peaks come from


@dataclass
class AccessRow:
    """One access of a kernel."""

    kernel: int
    access: int  # into accesses of the kernel's space
    verdict: str  # static, data-dependent
    executions: int  # how often its statement runs in one launch; a mask may skip some
    example: str  # what it touches in the middle iteration, in words
    traced: str  # what the traces say, in words; ""


@dataclass
class AddressesData(ViewData):
    rows: list[AccessRow] = field(default_factory=list)
    kernel: int = 0  # shown first
    static: int = 0  # executions with addresses that are known before the run
    dynamic: int = 0


@dataclass
class ValueRow:
    """One series of the program's values, and what is to be said about it."""

    series: int  # into values of the program
    ratio: list[float | None]  # of an update: its norm over that of its weight, by sample; else []
    remarks: list[str]


@dataclass
class ValuesData(ViewData):
    rows: list[ValueRow] = field(default_factory=list)  # by module, in the order of the network


@dataclass
class Compared:
    """One of the two programs that are compared."""

    recording: str  # title
    program: str
    created: str
    machine: str
    cores: int
    backend: str
    engine: str
    runs: int


@dataclass
class Difference:
    """One number of the program, a kernel or a line, before and after."""

    name: str
    unit: str  # "", s, bytes, flops
    before: float | None
    before_low: float | None  # quartiles of the runs, where it is a measured time
    before_high: float | None
    after: float | None
    after_low: float | None
    after_high: float | None
    chance: float | None  # of so large a difference by noise alone (see tinyviz/significance.py); None: too few runs, or no time
    verdict: str  # equal, more, less, noise, new, gone, untested, unknown


@dataclass
class KernelPair:
    """A kernel and what it has become."""

    before: int  # kernels of the two programs; -1
    after: int
    name_before: str
    name_after: str
    common: float  # of the nodes that either computes, the share that both do
    time: Difference
    bytes: Difference
    flops: Difference
    code: str  # same, schedule (the loops are, their schedule is another), loops; "": one is missing


@dataclass
class NodeChange:
    """A node that is not what it was."""

    kind: str  # added, removed, changed, rewired
    first: bool  # the change begins here: nothing before it differs
    before: int  # node ids of the two programs; -1
    after: int
    text_before: str
    text_after: str
    where: str  # "train.py:12" of the node after, else before
    code: str  # that line
    module: str


@dataclass
class LinePair:
    line: int  # id after; -1: it went
    where_before: str
    where_after: str
    code: str
    same: bool  # all kernels that serve it, before and after, are the same
    time: Difference


@dataclass
class CompareData(ViewData):
    before: Compared | None = None
    after: Compared | None = None
    figures: list[Difference] = field(default_factory=list)
    kernels: list[KernelPair] = field(default_factory=list)
    nodes: list[NodeChange] = field(default_factory=list)
    lines: list[LinePair] = field(default_factory=list)
    equal: int = 0  # nodes with the same history
    behind: int = 0  # nodes that are what they were, behind a change
    settings: list[str] = field(default_factory=list)  # what else differs: machine, backend, engine
    caveat: str = ""  # what a difference of times then means; "": nothing but the program differs
    floor: str = ""  # what times are judged by: how far those of kernels lie apart that are the same on both sides


@dataclass
class Views:
    """The views that a page carries; None: not on this page."""

    overview: OverviewData | None = None
    graph: GraphData | None = None
    stages: StagesData | None = None
    fusion: FusionData | None = None
    kernel: KernelData | None = None
    timeline: TimelineData | None = None
    lines: LinesData | None = None
    memory: MemoryData | None = None
    roofline: RooflineData | None = None
    values: ValuesData | None = None
    addresses: AddressesData | None = None
    compare: CompareData | None = None


@dataclass
class Times:
    """Seconds of several runs: the median, the quartiles, and each."""

    seconds: float
    low: float
    high: float
    samples: list[float]


@dataclass
class WhatIfAnswer:
    """One edge under another verdict, beside the program as it is; see `tinyengine.edits.WhatIf`."""

    subject: str
    asked: str
    verdict_before: str
    verdict: str
    followed: bool
    reason: str
    kernels_before: int
    kernels: int
    recompiled: list[str]  # kernels that were compiled anew
    bytes_before: int
    bytes_moved: int
    seconds_predicted_before: float
    seconds_predicted: float
    before: Times  # of one run of the whole program
    after: Times
    difference: Times  # run by run
    ulp: float | None  # largest difference of a result; None: a NaN on one side alone
    result: str  # where it is
    pin: str  # the line of Python that keeps it


@dataclass
class ScheduleAnswer:
    """One kernel under another schedule; see `tinyengine.edits.ScheduleTrial`. Seconds are of one launch."""

    schedule: list[str]
    error_line: int  # the first that is not legal, from 0; -1
    error: str
    scheduled: Code  # loops after it; after the lines before the one that is not legal
    source: Code
    assembly: Code
    wrong: str  # which elements differ from the reference; "": none
    checked: str  # what it was compared with
    error_relative: float | None
    seconds_predicted: float | None
    before: Times | None
    after: Times | None
    pin: str


@dataclass
class TuneAnswer:
    """What the tuner tried on one kernel."""

    attempts: list[Attempt]
    text: str


@dataclass
class CountAnswer:
    """One run, counted by the interpreter."""

    peak_bytes: int
    kernels: list[Counted]  # in the order of the program's
    ledger: list[LedgerRow]  # with what was counted


@dataclass
class TriedAgain:
    """One step of the search for what to compute again."""

    slot: int  # -1: it has no buffer of its own
    subject: str
    per_flop: float  # its bytes for each FLOP of computing it alone again
    peak: int  # bytes, of the whole program, predicted with what was taken before and this
    flops: int  # of the whole program
    taken: bool
    reason: str


@dataclass
class UnderAnswer:
    """Which activations to compute again so that the peak stays under a limit."""

    limit: int  # bytes
    peak_before: int
    peak: int  # predicted; above the limit: the least that was found
    slots: list[int]
    tried: list[TriedAgain]
    measured: Recomputed | None  # None: nothing is computed again


@dataclass
class ProgramPage:
    """The views of another program of the recording."""

    program: int
    views: Views
    texts: dict[str, str]


@dataclass
class Page:
    """The data of a bundle (`tinyviz.widget.ViewWidget(view, data)`): one explorer."""

    view: str  # shown first: a name of Views, or "explorer"
    recording: Recording
    views: Views
    texts: dict[str, str] = field(default_factory=dict)  # the text twin of each view
    selection: Selection | None = None
    more: list[ProgramPage] = field(default_factory=list)  # of other programs, most time first; not of all where they are large
