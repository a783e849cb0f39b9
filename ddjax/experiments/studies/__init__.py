"""Studies of convergence, measured beside what theory predicts."""
