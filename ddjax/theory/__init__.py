"""What theory says: closed forms, rates, and exact measures of convergence."""
