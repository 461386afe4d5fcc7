"""Every figure of the notebooks has an alternative text."""

import ast
import json
from pathlib import Path

import pytest

from xai_utils.suite import alt_text

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))


def without_text(source):
    """Names of the figures that a cell's `run.figure` keeps without `alt`."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    figures = [call for call in calls if ast.unparse(call.func) == "run.figure"]
    return [ast.unparse(call.args[0]).strip("'") for call in figures if "alt" not in {k.arg for k in call.keywords}]


def cells(path):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_every_figure_has_a_text():
    found = {
        path.stem: [name for cell in cells(path) for name in without_text("".join(cell["source"]))]
        for path in NOTEBOOKS
    }
    assert {stem: names for stem, names in found.items() if names} == {}, "say what the figure shows: alt=…"


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


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks/solutions").glob("0*.ipynb")), ids=lambda path: path.stem)
def test_every_figure_of_the_solutions_has_a_text_too(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    drawn = [
        cell for cell in notebook["cells"] if any("image/png" in o.get("data", {}) for o in cell.get("outputs", []))
    ]
    assert all(cell["metadata"].get("mystnb", {}).get("image", {}).get("alt") for cell in drawn)
    assert alt_text.copied(notebook) is False, "run notebooks/clean"
