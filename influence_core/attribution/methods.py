"""The methods by name."""

from typing import TYPE_CHECKING

from influence_core.attribution.abif import Abif
from influence_core.attribution.base import Attributor
from influence_core.attribution.controls import Embedding, Random
from influence_core.attribution.ekfac import Ekfac
from influence_core.attribution.hif import HifCg, HifCr
from influence_core.attribution.tracin import TracIn
from influence_core.attribution.tracin_adam import TracInAdam
from influence_core.attribution.tracin_multi import TracInMulti
from influence_core.specs import Attributed

if TYPE_CHECKING:
    from influence_core.workspace import Workspace

METHODS: dict[str, Attributor] = {
    method.name: method
    for method in (
        Abif(),
        TracIn(),
        TracInMulti(),
        TracInAdam(),
        HifCr(),
        HifCg(),
        Embedding(),
        Random(),
        Ekfac(),
    )
}


def method_for(workspace: "Workspace", spec: Attributed) -> Attributor:
    """Return the asked method; by default abif if an index exists, else tracin."""
    if spec.method is not None:
        return METHODS[spec.method]
    has_index = Abif().table(workspace, spec) is not None
    return METHODS["abif" if has_index else "tracin"]
