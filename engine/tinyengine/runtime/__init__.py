"""Buffers, memory, threads, compiled programs, the disk cache and clocks."""
