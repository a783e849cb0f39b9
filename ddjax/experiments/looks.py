"""The look of all figures. Importing it loads Matplotlib."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

__all__ = ["AXES", "COLORS", "STYLES", "plt"]

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.")  # after the colours have been through
AXES = {"accuracy": ("test accuracy", "linear"), "mse": ("test MSE", "log")}  # metric → label and scale
