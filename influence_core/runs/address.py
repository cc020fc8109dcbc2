"""Where the engine of this home is, and the credentials to talk to it; one file, replaced at once."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from influence_core import home
from influence_core.errors import UserError
from influence_core.runs import locks

if TYPE_CHECKING:
    from distributed import Security


class EngineAddress(BaseModel):
    """A scheduler's address with the PEM texts that open it; ``pid`` is the engine's process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    authority: str
    certificate: str
    key: str
    pid: int | None = None  # None: not an engine of this home

    def security(self) -> "Security":
        """Return Dask's form of the credentials, the same in all roles."""
        from distributed import Security  # half a second, which a page should not pay to show a list

        make: Any = Security  # Dask's constructor has no type hints
        roles = ("client", "scheduler", "worker")
        certificates = {f"tls_{role}_cert": self.certificate for role in roles}
        keys = {f"tls_{role}_key": self.key for role in roles}
        security: Security = make(require_encryption=True, tls_ca_file=self.authority, **certificates, **keys)
        return security


def folder() -> Path:
    """Return the engine's folder, readable by its owner alone."""
    path = home.folder("engine")
    path.chmod(0o700)
    return path


def lock_file() -> Path:
    """File that the engine holds locked from its start to its end."""
    return folder() / "lock"


def publish(engine: EngineAddress) -> None:
    """Let clients find the engine."""
    home.write_text(folder() / "engine.json", engine.model_dump_json())


def withdraw() -> None:
    """Let no new client find the engine."""
    (folder() / "engine.json").unlink(missing_ok=True)


def published() -> EngineAddress | None:
    """Return where the living engine of this home is; None if there is none, or not yet."""
    if not locks.is_held(lock_file()):
        return None
    try:
        return EngineAddress.model_validate_json((folder() / "engine.json").read_bytes())
    except FileNotFoundError:
        return None


def external() -> EngineAddress | None:
    """Return the cluster that ``INFLUENCE_SCHEDULER`` names, or None.

    Its credentials are the files ``INFLUENCE_TLS_CA``, ``INFLUENCE_TLS_CERT`` and
    ``INFLUENCE_TLS_KEY``. Raises `UserError` for an address without TLS, or a missing file.
    """
    address = os.environ.get("INFLUENCE_SCHEDULER")
    return None if not address else from_environment(address)


def from_environment(address: str) -> EngineAddress:
    """Return an address with the credentials that the environment names; raises `UserError`."""
    if not address.startswith("tls://"):
        raise UserError(f"scheduler {address!r}: a scheduler runs what it is sent, so give a tls:// address")
    texts = {}
    for field, variable in (
        ("authority", "INFLUENCE_TLS_CA"),
        ("certificate", "INFLUENCE_TLS_CERT"),
        ("key", "INFLUENCE_TLS_KEY"),
    ):
        name = os.environ.get(variable)
        if not name:
            raise UserError(f"scheduler {address}: set {variable} to the PEM file with its {field}")
        try:
            texts[field] = Path(name).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{variable} = {name!r}: cannot read it ({type(error).__name__}); give a PEM file"
            ) from None
    return EngineAddress(address=address, **texts)
