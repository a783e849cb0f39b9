"""Benchmarks, which measure what a round costs on this machine, or plan the cost for other accelerators."""
