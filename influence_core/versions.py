"""Which versions of this library and of those beneath it are installed; none of them is imported for it."""

import importlib.metadata
import platform

from influence_core import __version__

LIBRARIES = ("torch", "torchvision", "transformers", "numpy")


def versions() -> dict[str, str]:
    """Return {name: version}, of Python and this library too."""
    installed = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"influence_core": __version__, "python": platform.python_version(), **installed}
