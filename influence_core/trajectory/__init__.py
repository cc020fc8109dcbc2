"""Primitive 2: training steps as pure functions of everything they depend on."""
