"""Correcting a misprediction by a few fine-tuning steps (paper, Sec. 6)."""
