"""Import the heavy libraries in a fresh worker while it waits, so that the first run starts warm."""

import importlib
import logging
import os
import threading

_logger = logging.getLogger(__name__)
_threads: list[threading.Thread] = []


def _import_all() -> None:
    for name in filter(None, os.environ.get("INFLUENCE_PRELOAD", "torch,transformers").split(",")):
        try:
            importlib.import_module(name)
        except ImportError:  # a run that needs it will say so; this worker may have others to do
            _logger.exception("could not preload %s", name)


def dask_setup(worker: object) -> None:
    """Start the imports in a thread; Dask calls this when a worker process starts."""
    thread = threading.Thread(target=_import_all, name="preload", daemon=True)
    _threads.append(thread)
    thread.start()


def wait() -> None:
    """Wait for the imports: a second thread importing parts of the same packages can deadlock."""
    for thread in _threads:
        thread.join()
