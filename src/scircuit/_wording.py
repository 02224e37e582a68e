"""How sentences name amounts and times, and which name a mistyped one is nearest to."""

import math
from collections.abc import Iterable
from difflib import get_close_matches


def amount(size: float) -> str:
    """Bytes as text: `8.4 GB`."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size / 1e3:.3g} kB"


def duration(seconds: float) -> str:
    """Seconds as text: `3.5 h`; NaN is unknown."""
    if math.isnan(seconds):
        return "unknown"
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name as a question with a blank after it, or nothing."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""
