"""Runs every combination of comma lists of flags, unattended, and leaves one table."""

import sys

from ddjax.experiments.sweeps.sweep import main

if __name__ == "__main__":
    sys.exit(main())
