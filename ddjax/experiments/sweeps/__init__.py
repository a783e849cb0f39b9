"""Sweeps, which run every combination of the values in lists of settings, and collect the results in one table."""
