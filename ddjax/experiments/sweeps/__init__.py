"""Sweeps: every combination of comma lists of settings, with one table of results."""
