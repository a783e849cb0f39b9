"""Measure what simulated devices cost, or plan the cost for other accelerators."""

import sys

try:
    from ddjax.experiments.benchmarks.benchmark import main
except KeyboardInterrupt:  # while libraries load
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
