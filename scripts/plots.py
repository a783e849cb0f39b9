"""Draw the learning curves of several runs in one figure, or the network of one run."""

import sys

try:
    from ddjax.experiments.plots import main
except KeyboardInterrupt:  # while libraries load
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
