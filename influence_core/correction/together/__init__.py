"""Correcting several mispredictions together: one perturbation with a group of rows for each (Q > 1)."""
