"""What `loops` does to the nests that it has made: loops of equal range become one (merge), buffers serve again (reuse)."""
