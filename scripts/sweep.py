"""Run every combination of values in comma-separated flags, and write one table of results."""

import sys

try:
    from ddjax.experiments.sweeps.sweep import main
except KeyboardInterrupt:  # while libraries load
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
