"""python -m tests.benchmarks [--quick] [--only ROW]... [--alone] [--output FILE]"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from tests.benchmarks import report
from tests.benchmarks.engines import ENGINES, OURS, ROOT
from tests.benchmarks.rows import rows
from tests.benchmarks.run import QUICK, Plan, run


def main() -> int:
    description = "Measure tinyviz's engine beside the limits of the machine and its peers, in one interleaved run."
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=description)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run? its times mean nothing")
    only = "rows whose name begins so (chain, matmul_512, gpt, cold_mlp, lazy_op, recording...); may be repeated"
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help=only)
    parser.add_argument("--alone", action="store_true", help="without the peers")
    parser.add_argument("--rounds", type=int, help="of steady calls")
    where = "where the page goes (default: a whole run to BENCHMARKS.md, its figures to README.md; else nowhere)"
    parser.add_argument("--output", type=Path, help=where)
    args = parser.parse_args()
    plan = dataclasses.replace(QUICK if args.quick else Plan(), only=tuple(args.only))
    if args.rounds:
        plan = dataclasses.replace(plan, rounds=args.rounds)
    engines = [OURS] if args.alone else list(ENGINES)
    results = run(plan, lambda text: print(text, file=sys.stderr, flush=True), engines)
    page = report.markdown(results, plan)
    print(page)
    whole = not (args.quick or args.only or args.alone)
    output = args.output or (ROOT / "BENCHMARKS.md" if whole else None)
    if output is not None:
        output.write_text(page, encoding="utf-8")
        print(f"wrote {output}", file=sys.stderr)
    if whole and args.output is None:
        readme = ROOT / "README.md"
        text = report.put_figures(readme.read_text(encoding="utf-8"), report.first_figures(results, plan))
        readme.write_text(text, encoding="utf-8")
        print(f"wrote the first figures in {readme}", file=sys.stderr)
    stale = report.stale(rows(results, plan)) if whole else []
    if stale:
        print(f"bounds.py explains rows that miss nothing here: {', '.join(stale)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
