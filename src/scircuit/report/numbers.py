"""How numbers are written on the page: digits that mean something, and a dash for what is not known."""

import math
from typing import Any

MISSING = "–"


def count(value: Any) -> str:
    """A whole number with thousands separated."""
    return MISSING if _absent(value) else f"{int(value):,}"


def decimal(value: Any, digits: int = 2) -> str:
    """A number with a fixed count of decimals and a true minus sign."""
    return MISSING if _absent(value) else f"{float(value):,.{digits}f}".replace("-", "−")


def percent(value: Any) -> str:
    """A share as a percentage with one decimal."""
    return MISSING if _absent(value) else f"{100 * float(value):.1f}%".replace("-", "−")


def probability(value: Any) -> str:
    """A p or q value: plain down to 0.001, then as a power of ten."""
    if _absent(value):
        return MISSING
    number = float(value)
    if 0.001 <= number < 1000 or number == 0:
        return f"{number:.3f}".rstrip("0").rstrip(".") if number else "0"
    mantissa, exponent = f"{number:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}×10{raised}"


def significant(value: Any) -> str:
    """A number with three significant digits, without powers of ten where it can be read without."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    number = float(value)
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    if number and not 1e-4 <= abs(number) < 1e6:
        return probability(number) if number > 0 else f"−{probability(-number)}"
    places = max(0, 2 - math.floor(math.log10(abs(number)))) if number else 0
    return f"{number:,.{places}f}".replace("-", "−")


def interval(low: Any, high: Any) -> str:
    """Two ends of a confidence interval."""
    ends = significant(low), significant(high)
    return MISSING if MISSING in ends else " to ".join(ends)


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
