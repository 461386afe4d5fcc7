"""How a number over seeds is written in a sentence: digits, sign, percent, interval. The one place that decides it.

A *form* says what is shown of a metric. `spread`: mean ± standard deviation. `value`: the mean. `range`: the interval
alone. `interval`: mean and interval. `count`: the mean as a whole number. `n`: how many seeds. `size`: the mean
without its sign. `percent` and `points`: the mean times 100 (a metric that is in percent, as it is), the latter
without "%". `signed` and `signed points`: with a plus, too. The last four take `interval` after them.

Digits: a mean and its interval end where the half width of the interval has two digits, in percent one (two if that
is a 1); where a metric has none, the standard deviation decides. An end that is not 0 never reads 0, and a share below
1 never reads 1.
"""

from __future__ import annotations

import math

from xai_utils.suite.over_seeds import OverSeeds
from xai_utils.suite.report import number

FORMS = ("spread", "value", "range", "interval", "count", "n", "size", "percent", "points", "signed", "signed points")
FORMS += ("percent interval", "points interval", "signed interval", "signed points interval")
_MOST = 3  # decimals; one more where an end would read 0, and what needs more is written as a power of ten
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def shown(entry: OverSeeds, form: str = "spread") -> str:
    """A metric over seeds in one of `FORMS`; the minus is the mathematical one.

    Raises:
        ValueError: the form is unknown, the metric is not defined, or it has no interval and the form shows one.
    """
    if form not in FORMS:
        raise ValueError(f"form {form!r}: expected one of {', '.join(FORMS)}")
    if form == "n":
        return str(entry.n)
    if entry.value is None:
        raise ValueError(f"it is not defined ({entry.note}), so it cannot be shown as {form}")
    if form == "count":
        return f"{entry.value:.0f}"
    if form == "spread":
        return minus(number(entry.value, entry.std, entry.unit if entry.unit == "%" else ""))
    words = form.split()
    with_ends = form == "range" or "interval" in words
    if with_ends and (entry.low is None or entry.high is None):
        raise ValueError(f"it has no interval, so it cannot be shown as {form}")
    hundredths = entry.unit == "%" or bool({"percent", "points"} & {*words})
    scale = 100.0 if hundredths and entry.unit != "%" else 1.0
    numbers = [scale * x for x in ((entry.value, entry.low, entry.high) if with_ends else (entry.value,))]
    digits = _digits(entry, scale, 1 if hundredths else 2, numbers)
    sign = "+" if "signed" in words else ""
    written = [_written(abs(x) if form == "size" else x, digits, sign) for x in numbers]
    percent = " %" if hundredths and "points" not in words else ""
    ends = f"[{', '.join(written[1:])}]" if with_ends else ""
    return minus(f"{ends}{percent}" if form == "range" else f"{written[0]}{percent} {ends}".strip())


def minus(text: str) -> str:
    """The text with − for the hyphen before a digit; that of a range or a word (CIFAR-10) stays."""
    out = []
    for place, sign in enumerate(text):
        follows = text[place + 1 : place + 2].isdigit() and not text[place - 1 : place].isalnum()
        out.append("−" if sign == "-" and (follows or text[place - 1 : place] == "e") else sign)
    return "".join(out)


def _digits(entry: OverSeeds, scale: float, significant: int, numbers: list[float]) -> int:
    """How many decimals are shown."""
    if entry.low is not None and entry.high is not None and entry.high > entry.low:
        width = scale * (entry.high - entry.low) / 2
    else:
        width = scale * (entry.std or 0.0)
    if width:
        power = math.floor(math.log10(width))
        digits = max(significant + (significant == 1 and width < 2 * 10**power) - 1 - power, 0)
    else:
        digits = next((d for d in range(_MOST) if round(numbers[0], d) == numbers[0]), 3)
    digits = min(digits, _MOST)
    while digits <= _MOST and any(x and (not round(x, digits) or _reads_whole(x, digits, scale)) for x in numbers):
        digits += 1
    return digits


def _reads_whole(x: float, digits: int, scale: float) -> bool:
    return x != scale and round(x, digits) == scale and abs(x - scale) > 1e-9


def _written(x: float, digits: int, sign: str) -> str:
    if x and not round(x, digits):  # 8.5e-08
        mantissa, _, power = f"{x:{sign}.1e}".partition("e")
        return f"{mantissa} × 10{str(int(power)).translate(_RAISED)}"
    return f"{x:{sign}.{digits}f}" if x else f"{0.0:.{digits}f}"
