"""Checkpoint to classifier: logits and per-example losses as functions of the parameters."""
