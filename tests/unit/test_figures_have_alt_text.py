"""Figures of the notebooks have an alternative text. WITHOUT lists those from before this rule; it may only shrink."""

import ast
import json
from pathlib import Path

import pytest

from xai_utils.suite import alt_text

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
WITHOUT = {
    "02_moram_regression": "samples structure training predictions table1 inside fig1_pixel_accuracy others",
}  # fmt: skip


def without_text(source):
    """Names of the figures that a cell's `run.figure` keeps without `alt`."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    figures = [call for call in calls if ast.unparse(call.func) == "run.figure"]
    return [ast.unparse(call.args[0]).strip("'") for call in figures if "alt" not in {k.arg for k in call.keywords}]


def cells(path):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_the_figures_without_a_text_are_those_that_are_listed():
    sources = {path.stem: ["".join(cell["source"]) for cell in cells(path)] for path in NOTEBOOKS}
    found = {stem: " ".join(name for cell in listed for name in without_text(cell)) for stem, listed in sources.items()}
    assert {stem: names for stem, names in found.items() if names} == WITHOUT, "say what the figure shows: alt=…"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_cell_has_the_text_of_the_figure_that_it_shows(path):
    assert alt_text.copied(json.loads(path.read_text(encoding="utf-8"))) is False, "run notebooks/clean"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("_ = run.figure('curve', plot.curves(x))", ["curve"]),
        ("_ = run.figure('curve', plot.curves(x), alt='Two curves.')", []),
        ("run.figure(name, fig)\nfig.figure('other')\nmake(run.figure('map', fig))", ["name", "map"]),
    ],
)
def test_what_counts_as_without(source, expected):
    assert without_text(source) == expected
