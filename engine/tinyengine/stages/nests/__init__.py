"""What `loops` makes nests with (blocks, values, views, support), and what it does to them then: loops of equal range become one
(merge), buffers serve again (reuse)."""
