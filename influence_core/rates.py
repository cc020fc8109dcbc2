"""How fast this machine was at a kind of work: measured by runs, kept in ``rates.json`` of the home."""

from influence_core.home import home, read_json, write_json

FEWEST = 64  # rows below which a measurement says little


def record(kind_of_work: str, rows: int, seconds: float) -> None:
    """Keep the rate of a kind of work ("forward") in rows a second; fewer than 64 rows are ignored."""
    if rows < FEWEST or seconds <= 0:
        return
    write_json(home() / "rates.json", {**_rates(), kind_of_work: rows / seconds})


def rate(kind_of_work: str, default: float) -> float:
    """Return the last measured rate, in rows a second, or the default where none was measured."""
    return float(_rates().get(kind_of_work, default))


def _rates() -> dict[str, float]:
    file = home() / "rates.json"
    found: dict[str, float] = read_json(file) if file.exists() else {}
    return found
