"""Trains a network of devices and writes what was measured."""

import sys

from ddjax.experiments.train import main

if __name__ == "__main__":
    sys.exit(main())
