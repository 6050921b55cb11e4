"""What `fuse` decides by: who needs what (uses), prices (cost), blocks of attention (blocks), the groups that come out, and
what is computed again for the backward pass (recompute)."""
