"""Measures convergence against theory."""

import sys

from ddjax.experiments.studies.study import main

if __name__ == "__main__":
    sys.exit(main())
