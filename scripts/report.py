"""Write a report on one or several sweeps."""

import sys

try:
    from ddjax.experiments.reports.report import main
except KeyboardInterrupt:  # while libraries load
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
