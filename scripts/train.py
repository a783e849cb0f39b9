"""Trains a network of devices and writes what was measured."""

import sys

try:
    from ddjax.experiments.train import main
except KeyboardInterrupt:  # while libraries load
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
