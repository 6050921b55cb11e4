"""Source and assembly as linked lines: which line of the scheduled loops does each do?"""

from __future__ import annotations

import re

from tinyviz.wire import Code

LANGUAGES = {"llvm": "llvm", "opencl": "opencl", "reference": "loops"}
_DBG = re.compile(r", !dbg !(\d+)")
_LOCATION = re.compile(r"^!(\d+) = (?:distinct )?!DILocation\(line: (\d+)")
_METADATA = re.compile(r"^(!|source_filename|target |attributes #)")
_LOC = re.compile(r"^\s*\.loc\s+\d+\s+(\d+)")
_LINE = re.compile(r"^\s*#line (\d+)")
_LABEL = re.compile(r"^\.?[\w.$]+:")
_HIDDEN_LABEL = re.compile(r"^\.L(tmp|func|cfi|section|debug|info|str|line)\w*:")


def source(text: str, backend: str, loops: int) -> Code:
    """The backend's source; `loops`: how many lines the scheduled loops have. Debug metadata becomes links and is left out."""
    language = LANGUAGES.get(backend, backend)
    rows = text.rstrip("\n").split("\n")
    out = Code(language)
    if language == "loops":  # the reference backend runs the loops themselves
        out.text, out.link = rows, [i if i < loops else -1 for i in range(len(rows))]
        return out
    where = {m[1]: int(m[2]) for m in map(_LOCATION.match, rows) if m}
    named = 0
    for row in rows:
        if line := _LINE.match(row):
            named = int(line[1])
            continue
        if language == "llvm" and _METADATA.match(row):
            continue
        at = _DBG.search(row)
        out.text.append(_DBG.sub("", row))
        out.link.append(_valid(where.get(at[1], 0) if at else named, loops))
    while out.text and not out.text[-1].strip():
        out.text.pop()
        out.link.pop()
    return out


def assembly(text: str, loops: int) -> Code:
    """Instructions and labels; `.loc` directives become links, other directives are left out."""
    out = Code("assembly")
    named = 0
    for row in text.split("\n"):
        if loc := _LOC.match(row):
            named = int(loc[1])
        elif _LABEL.match(row):
            if not _HIDDEN_LABEL.match(row):
                out.text.append(row.rstrip())
                out.link.append(-1)
        elif row.strip() and not row.lstrip().startswith((".", "#", "//", ";")):
            out.text.append(row.rstrip().expandtabs(8))
            out.link.append(_valid(named, loops))
    return out


def _valid(line: int, loops: int) -> int:
    """Debug lines count from 1; 0 is none."""
    return line - 1 if 0 < line <= loops else -1
