"""Sweeps, which run every combination of comma-separated lists of settings, with one table of results."""
