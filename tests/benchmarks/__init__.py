"""`python -m tests.benchmarks` (what `make bench` runs): tinyviz's engine beside PyTorch and NumPy, in one interleaved run."""
