"""Draws the learning curves of several runs into one figure."""

import sys

from ddjax.experiments.plots import main

if __name__ == "__main__":
    sys.exit(main())
