"""Studies of convergence, which compare measurements with what theory predicts."""
