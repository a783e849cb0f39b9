"""Benchmarks, which measure the time and memory of a round on this machine, or predict them for other accelerators."""
