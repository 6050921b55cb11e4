"""python -m tests.benchmarks [--quick] [--output FILE]"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.benchmarks import cases, report
from tests.benchmarks.run import QUICK, ROOT, Plan, run


def main() -> int:
    description = "Measure tinyviz's engine beside PyTorch and NumPy."
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=description)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run? its times mean nothing")
    where = "where the page goes (default: BENCHMARKS.md, and figures to README.md; with --quick nowhere)"
    parser.add_argument("--output", type=Path, help=where)
    args = parser.parse_args()
    results = run(QUICK if args.quick else Plan(), lambda text: print(text, file=sys.stderr, flush=True))
    page = report.markdown(results, cases.QUICK if args.quick else cases.FULL)
    print(page)
    output = args.output or (None if args.quick else ROOT / "BENCHMARKS.md")
    if output is not None:
        output.write_text(page, encoding="utf-8")
        print(f"wrote {output}", file=sys.stderr)
    if output is not None and args.output is None:
        readme = ROOT / "README.md"
        text = report.put_figures(readme.read_text(encoding="utf-8"), report.first_figures(results))
        readme.write_text(text, encoding="utf-8")
        print(f"wrote the first figures in {readme}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
