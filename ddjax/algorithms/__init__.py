"""Algorithms: a local phase and a mixed quantity each, one a module."""
