"""Which layer rule serves a module."""

from collections.abc import Callable

from torch import Tensor, nn

from influence_core.errors import UserError
from influence_core.gradients.rules.factors import Factor

Rule = Callable[[nn.Module, Tensor, Tensor], dict[str, Factor]]
"""(module, input a [B, ...], output gradient b [B, ...]) -> factor of each of the module's own parameters."""

_rules: dict[type[nn.Module], Rule] = {}


def register(kind: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Make the decorated function the rule of a module type (and of subclasses with the same forward)."""

    def add(rule: Rule) -> Rule:
        _rules[kind] = rule
        return rule

    return add


def rule_for(name: str, module: nn.Module) -> Rule:
    """Return the rule for a module.

    A subclass uses its base's rule only if it inherits the very same ``forward``, and no instance
    attribute replaces it: then the same formula holds.

    Raises:
        UserError: no rule; the message names the module and its type.
    """
    kind = type(module)
    for base in kind.__mro__:
        if base in _rules and kind.forward is base.forward and "forward" not in vars(module):
            return _rules[base]
    known = ", ".join(sorted(each.__name__ for each in _rules))
    raise UserError(
        f"module {name!r} is a {kind.__module__}.{kind.__qualname__}, for which there is no layer rule "
        f"(known: {known}): choose a scope without it, or add "
        f"influence_core/gradients/rules/{kind.__name__.lower()}.py with a function under "
        f"@register({kind.__name__}) and import it in rules/__init__.py"
    )
