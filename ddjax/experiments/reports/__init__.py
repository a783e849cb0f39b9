"""Reports on sweeps."""
