"""`python -m tinyviz`: the command `tinyviz`."""

from tinyviz.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
