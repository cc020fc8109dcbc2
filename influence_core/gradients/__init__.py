"""Per-example gradients: layer rules and the projection pass."""
