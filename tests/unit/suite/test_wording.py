"""Numbers in sentences: digits, signs, percent, intervals."""

import pytest

from xai_utils.suite import wording
from xai_utils.suite.over_seeds import OverSeeds


def entry(value, low=None, high=None, std=None, unit="", n=3):
    return OverSeeds(value, n, low, high, unit, std=std, note="too few" if value is None else "")


SHARE, GAIN = entry(0.19048, 0.12734, 0.26005, 0.0253), entry(0.00679, -0.0077, 0.02141, 0.0092)


@pytest.mark.parametrize(
    ("found", "form", "expected"),
    [
        (entry(98.457, 97.95, 98.97, 0.21, "%"), "spread", "98.46 ± 0.21 %"),
        (entry(-0.0229, -0.0867, 0.0407, 0.0257), "spread", "−0.023 ± 0.026"),
        (SHARE, "value", "0.190"),
        (SHARE, "interval", "0.190 [0.127, 0.260]"),
        (SHARE, "range", "[0.127, 0.260]"),
        (SHARE, "percent", "19 %"),
        (SHARE, "percent interval", "19 % [13, 26]"),
        (SHARE, "points interval", "19 [13, 26]"),
        (entry(98.457, 97.95, 98.97, 0.21, "%"), "interval", "98.5 % [98.0, 99.0]"),
        (entry(98.457, 97.95, 98.97, 0.21, "%"), "range", "[98.0, 99.0] %"),
        (GAIN, "signed points interval", "+0.7 [−0.8, +2.1]"),  # half of it is 1.5 points: a 1 takes another digit
        (GAIN, "signed interval", "+0.007 [−0.008, +0.021]"),
        (GAIN, "signed", "+0.007"),
        (entry(-0.1354, -0.3466, 0.0759), "size", "0.14"),
        (entry(154.3, 102, 205, 21), "count", "154"),
        (entry(1.0, n=10), "n", "10"),
        (entry(8.547e-8, 5e-8, 1.2e-7, 1.4e-8), "value", "8.5 × 10⁻⁸"),
        (entry(0.05, 0.0004, 0.0996), "interval", "0.0500 [0.0004, 0.0996]"),  # an end above 0 does not read 0.00
        (entry(0.9982, 0.9, 1.0), "percent interval", "99.8 % [90.0, 100.0]"),  # a share below 1 does not read 100 %
        (entry(1.0, 1.0, 1.0, 0.0), "percent", "100 %"),
        (entry(0.0, 0.0, 0.0, 0.0), "signed", "0"),
        (entry(0.25), "value", "0.25"),  # without spread, as it is
        (entry(1 / 3), "value", "0.333"),
    ],
)
def test_a_number_is_written_as(found, form, expected):
    assert wording.shown(found, form) == expected


@pytest.mark.parametrize(
    ("found", "form", "message"),
    [
        (SHARE, "percents", "form 'percents': expected one of spread"),
        (entry(None), "percent", r"not defined \(too few\)"),
        (entry(0.5), "signed interval", "no interval"),
    ],
)
def test_what_cannot_be_written_is_refused(found, form, message):
    with pytest.raises(ValueError, match=message):
        wording.shown(found, form)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("-0.5 ± 0.1", "−0.5 ± 0.1"), ("[-1, -2]", "[−1, −2]"), ("CIFAR-10", "CIFAR-10"), ("1e-05", "1e−05")],
)
def test_a_minus_is_one_only_before_a_number(text, expected):
    assert wording.minus(text) == expected
