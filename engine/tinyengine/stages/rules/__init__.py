"""The rules of `simplify`, by what they rewrite: arithmetic, movement of elements, reductions, windows, narrow dtypes."""
