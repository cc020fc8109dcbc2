"""Layer rules: how a module's input and output gradient make its parameters' per-example gradients.

One rule a file; importing it here registers it.
"""

from influence_core.gradients.rules import (
    attention,
    bare,
    channelnorm,
    conv2d,
    embedding,
    layernorm,
    linear,
    scale,
)
from influence_core.gradients.rules.factors import Dense, Factor
from influence_core.gradients.rules.registry import Rule, register, rule_for

__all__ = [
    "Dense",
    "Factor",
    "Rule",
    "attention",
    "bare",
    "channelnorm",
    "conv2d",
    "embedding",
    "layernorm",
    "linear",
    "register",
    "rule_for",
    "scale",
]
