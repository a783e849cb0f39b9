"""Theory: closed forms, rates, and exact measures of convergence."""
