"""Numbers, times and configurations in few characters."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from search_spaces import Value

STATE_STYLES = {
    "queued": "dim",
    "running": "cyan",
    "pausing": "blue",
    "paused": "blue",
    "stopping": "yellow",
    "completed": "green",
    "pruned": "magenta",
    "stopped": "yellow",
    "cancelled": "yellow",
    "infeasible": "red",
    "failed": "red",
}
_FINE_SECONDS = 10
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def scalar(value: Value) -> str:
    """A parameter's value: three significant digits of a float, the last part of a path, a list as JSON."""
    if isinstance(value, float):
        return _short_float(value)
    if isinstance(value, str):
        return value.rsplit("/", 1)[-1]
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else str(value)


def number(value: float | None) -> str:
    """A metric's value: four decimals, or significant digits where those would show nothing."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else _short_float(value)  # noqa: PLR2004 - widths


def amount(value: float) -> str:
    """How many or how much: `0.125`, `12.5`, `1,500`."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"  # noqa: PLR2004 - from here on digits behind the point say nothing


def moment(at: datetime) -> str:
    """A time in the zone of whoever looks."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def _short_float(value: float) -> str:
    """`2.5e-5` and `6.3e-4`, not `2.50e-05` and `0.00063`."""
    text = f"{value:.3g}" if value == 0 or abs(value) >= 1e-3 else re.sub(r"\.?0*e", "e", f"{value:.2e}")  # noqa: PLR2004 - widths
    return re.sub(r"e([+-])0*(\d)", lambda found: f"e{found[1].replace('+', '')}{found[2]}", text)


def duration(seconds: float, *, fine: bool = False) -> str:
    """`8s`, `1m 05s`, `2h 10m`, `3d 4h`; where it is to be `fine`, `0.4s` too."""
    if fine and 0 < seconds < _FINE_SECONDS:
        return f"{seconds:.2g}s"
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR}h"


def since(start: datetime | None, end: datetime | None, now: datetime) -> str:
    """How long something took, or has taken so far."""
    return duration(((end or now) - start).total_seconds()) if start else "-"


def some(texts: Sequence[str], most: int = 5) -> str:
    """`a, b, c and 4 more`."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return f"{', '.join(texts[:most])}{more}"


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Initials for names of several words (`learning_rate`: `lr`), three letters for others; no two alike."""
    found: dict[str, str] = {}
    for name in names:
        words = [word for word in re.split(r"[^A-Za-z0-9]+", name.rsplit(".", 1)[-1]) if word]
        candidate = "".join(word[0] for word in words) if len(words) > 1 else "".join(words)[:4]
        found[name] = candidate if candidate and candidate not in found.values() else name
    return found


def configuration(parameters: Mapping[str, Value], names: Mapping[str, str] | None = None) -> str:
    """`learning_rate 3e-5 · batch_size 32`, with shorter names where given."""
    return " · ".join(f"{(names or {}).get(key, key)} {scalar(value)}" for key, value in parameters.items())


def trial_state(state: str, reason: str | None) -> str:
    """`pruned`, with the reason where the state alone does not say it."""
    expected = {"epochs_done", "rung_cut", "stop_requested", "cancel_requested", "pause_requested"}
    return state if reason is None or reason in expected else f"{state}: {reason}"


def run_name(trial: int, repeats: int | None) -> str:
    """Which trial it is, and of a run of the final whose configuration that trains."""
    return f"trial {trial}" if repeats is None else f"trial {trial}, a run of trial {repeats}'s configuration in the final"
