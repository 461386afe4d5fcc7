"""docs/promises.md: every promise names the tests that show it, and each of them is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/promises.md"


def rows():
    """The cells of each row of the page's tables whose last cell names tests."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [cells for cells in found if set(cells[0]) != {"-"} and "`tests/" in cells[-1]]


def test_every_test_that_the_page_names_is_there():
    named = [name for cells in rows() for name in re.findall(r"`(tests/[^`]+)`", cells[-1])]
    assert len(named) >= 30
    for name in named:
        file, _, function = name.partition("::")
        assert (ROOT / file).is_file(), name
        assert not function or f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), name


def test_every_promise_names_a_test():
    text = PAGE.read_text(encoding="utf-8")
    tables = re.findall(r"(?m)^\| .*\n\|[-| ]+\n((?:\|.*\n)+)", text)
    assert len(tables) >= 3
    for line in [line for table in tables for line in table.splitlines()]:
        assert "`tests/" in line, line
