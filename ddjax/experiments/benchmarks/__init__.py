"""Benchmarks: measure what a round costs on this machine, or plan it for other accelerators."""
