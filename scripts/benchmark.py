"""Measures what simulated devices cost."""

import sys

from ddjax.experiments.benchmarks.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
