"""Train a network of devices and write the measurements."""

import sys

try:
    from ddjax.experiments.train import main
except KeyboardInterrupt:  # while libraries load
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
