"""Measure the time and memory of a simulation, or predict them for other accelerators."""

import sys

try:
    from ddjax.experiments.benchmarks.benchmark import main
except KeyboardInterrupt:  # while libraries load
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
