"""How fast this machine passes rows through a checkpoint: measured by runs, kept in ``rates.json`` of the home."""

from collections.abc import Iterable

from influence_core.home import home, read_json, write_json

FEWEST = 64  # rows below which a measurement says little
FORWARD = 200.0  # rows a second, forward only: MiniLM-L6 on 2 CPU cores, about 27 tokens a row
PARAMETERS = 22.7e6  # of that model
FASTEST = 1000.0  # rows a second that are promised of a model that was never measured


def record(fingerprint: str, rows: int, seconds: float) -> None:
    """Keep a checkpoint's rate, in rows a second; fewer than 64 rows are ignored."""
    if rows < FEWEST or seconds <= 0:
        return
    write_json(home() / "rates.json", {**_rates(), fingerprint[:16]: rows / seconds})


def rate(fingerprints: Iterable[str], parameters: int) -> float:
    """Return the rate measured for the first of some checkpoints that has one, else a guess from the size."""
    known = _rates()
    measured = [known[each[:16]] for each in fingerprints if each[:16] in known]
    return measured[0] if measured else min(FASTEST, FORWARD * PARAMETERS / max(1, parameters))


def _rates() -> dict[str, float]:
    file = home() / "rates.json"
    found: dict[str, float] = read_json(file) if file.exists() else {}
    return found
