"""Which layer rule serves a module."""

from collections.abc import Callable

from torch import Tensor, nn

from influence_core.errors import UserError
from influence_core.gradients.rules.factors import Factor

Rule = Callable[[nn.Module, Tensor, Tensor], dict[str, Factor]]
"""(module, input a [B, ...], output gradient b [B, ...]) -> factor of each of the module's own parameters."""

_rules: dict[type[nn.Module] | str, Rule] = {}
_whole: set[type[nn.Module]] = set()


def register(*kinds: type[nn.Module] | str, whole: bool = False) -> Callable[[Rule], Rule]:
    """Make the decorated function the rule of module types (and of subclasses with the same forward).

    A type given by its dotted name need not be imported. A ``whole`` type reads its children's
    parameters without calling them: its rule serves those too, named as in ``named_parameters()``.
    The rule of ``nn.Module`` itself serves modules with children that have no rule of their own.
    """

    def add(rule: Rule) -> Rule:
        for kind in kinds:
            _rules[kind] = rule
            if whole and not isinstance(kind, str):
                _whole.add(kind)
        return rule

    return add


def is_whole(module: nn.Module) -> bool:
    """Say whether the module's rule also serves its children's parameters."""
    return _key(module) in _whole


def rule_for(name: str, module: nn.Module) -> Rule:
    """Return the rule for a module.

    A subclass uses its base's rule only if it inherits the very same ``forward``, and no instance
    attribute replaces it: then the same formula holds.

    Raises:
        UserError: no rule; the message names the module and its type.
    """
    key = _key(module)
    if key is None and any(True for _ in module.children()):
        key = nn.Module
    if key is not None:
        return _rules[key]
    kind = type(module)
    known = ", ".join(sorted(_short(each) for each in _rules if each is not nn.Module))
    raise UserError(
        f"module {name!r} is a {_dotted(kind)}, for which there is no layer rule "
        f"(known: {known}): choose a scope without it, or add "
        f"influence_core/gradients/rules/{kind.__name__.lower()}.py with a function under "
        f"@register({kind.__name__}) and import it in rules/__init__.py"
    )


def _key(module: nn.Module) -> type[nn.Module] | str | None:
    """Return under what the module's rule is registered, or None."""
    kind = type(module)
    if "forward" in vars(module):
        return None
    for base in kind.__mro__:
        if issubclass(base, nn.Module) and base is not nn.Module and kind.forward is base.forward:
            for key in (base, _dotted(base)):
                if key in _rules:
                    return key
    return None


def _dotted(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _short(key: type[nn.Module] | str) -> str:
    return key.rpartition(".")[2] if isinstance(key, str) else key.__name__
