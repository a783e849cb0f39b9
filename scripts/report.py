"""Draws a report of one or several sweeps."""

import sys

from ddjax.experiments.reports.report import main

if __name__ == "__main__":
    sys.exit(main())
