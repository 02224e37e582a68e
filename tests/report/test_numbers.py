"""Numbers as they are written: the digits say what the number is."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scircuit.report import numbers

SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def parse(text: str) -> float:
    mantissa, _, power = text.replace("−", "-").replace(",", "").partition("×10")
    return float(mantissa) * 10.0 ** int(power.translate(SUPERSCRIPTS) or 0)


@given(st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-30))
def test_significant_keeps_the_number(value: float) -> None:
    assert parse(numbers.significant(value)) == pytest.approx(value, rel=0.051)


@given(st.floats(1e-4, 1e5))
def test_significant_keeps_three_digits_in_the_usual_range(value: float) -> None:
    assert parse(numbers.significant(value)) == pytest.approx(value, rel=0.0051)


@given(st.floats(1e-300, 1))
def test_probability_keeps_its_order_of_magnitude(p: float) -> None:
    assert parse(numbers.probability(p)) == pytest.approx(p, rel=0.51 if p < 0.01 else 0.051)


@pytest.mark.parametrize(
    ("value", "text"), [(0.04999, "0.05"), (0.0312, "0.031"), (2.14e-5, "2.1×10⁻⁵"), (0.0, "0"), (1.0, "1")]
)
def test_probabilities(value: float, text: str) -> None:
    assert numbers.probability(value) == text


def test_the_rest() -> None:
    assert numbers.count(1234567) == "1,234,567"
    assert numbers.decimal(-1.005, 1) == "−1.0"
    assert numbers.percent(0.1234) == "12.3%"
    assert numbers.significant(math.inf) == "∞"
    assert numbers.significant(-math.inf) == "−∞"
    assert numbers.interval(0.1, 2) == "0.100 to 2.00"
    assert numbers.interval(14.9, math.inf) == "14.9 to ∞"


@pytest.mark.parametrize("write", [numbers.count, numbers.decimal, numbers.percent, numbers.probability])
@pytest.mark.parametrize("value", [None, math.nan])
def test_what_is_not_known_is_a_dash(write, value) -> None:
    assert write(value) == "–"


def test_an_interval_without_an_end_is_a_dash() -> None:
    assert numbers.interval(math.nan, 1.0) == "–"
