"""Measure convergence and compare it with theory."""

import sys

try:
    from ddjax.experiments.studies.study import main
except KeyboardInterrupt:  # while libraries load
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
