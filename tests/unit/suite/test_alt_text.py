"""Alternative text: from run.figure to the output's metadata, and by notebooks/clean to the cell's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from IPython.core.formatters import DisplayFormatter

from xai_utils.suite import alt_text

ROOT = Path(__file__).parents[3]
PIXEL = (  # a PNG of one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABAQMAAAAl21bKAAAAA1BMVEUAAACnej3aAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
SAYS = "Two curves that rise from zero and cross in the middle."


@pytest.fixture
def fig():
    fig, axes = plt.subplots()
    axes.plot([0, 1])
    yield fig
    plt.close(fig)


def test_a_shown_figure_has_its_text_in_the_metadata_of_the_output(fig):
    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type(type(fig), lambda figure: b"png")
    alt_text.attach(fig, "fig1_curves", SAYS)
    data, metadata = formatter.format(fig)
    assert metadata == {"image/png": {"alt": SAYS}}
    assert data["image/png"] == b"png"


@pytest.mark.parametrize(
    "alt", ["fig1 curves", "Figure of fig1: the curves", "curves curves curves curves curves", " "]
)
def test_a_text_that_says_hardly_more_than_the_name_is_refused(fig, alt):
    with pytest.raises(ValueError, match=r"figure 'fig1_curves': alt = .* says hardly more than the name. Say in"):
        alt_text.attach(fig, "fig1_curves", alt)
    assert not hasattr(fig, "_repr_mimebundle_")


def notebook(*cells):
    """A notebook with one cell for each (metadata, alternative texts of its figures)."""

    def output(alt):
        about = {"image/png": {"alt": alt}} if alt else {}
        return {"output_type": "display_data", "data": {"image/png": PIXEL}, "metadata": about}

    code = {"cell_type": "code", "source": "x"}
    made = [code | {"metadata": metadata, "outputs": list(map(output, alts))} for metadata, alts in cells]
    return {"cells": [{"cell_type": "markdown", "metadata": {}, "source": "Text."}, *made]}


def test_each_cell_gets_the_text_of_its_figure_and_loses_an_older_one():
    old = {"mystnb": {"image": {"alt": "old", "width": "9px"}}}
    book = notebook(({"tags": ["a"]}, [SAYS]), (old, ["new"]), ({"mystnb": {"image": {"alt": "gone"}}}, [""]), ({}, []))
    assert alt_text.copied(book) is True
    assert [cell["metadata"] for cell in book["cells"][1:]] == [
        {"tags": ["a"], "mystnb": {"image": {"alt": SAYS}}},
        {"mystnb": {"image": {"alt": "new", "width": "9px"}}},
        {},
        {},
    ]
    assert alt_text.copied(book) is False


def test_two_texts_in_one_cell_are_refused_by_the_command(tmp_path, capsys):
    path = tmp_path / "book.ipynb"
    path.write_text(json.dumps(notebook(({}, ["one", "two"]))))
    before = path.read_text()
    assert alt_text.main([str(path)]) == 1
    assert capsys.readouterr().err == (f"{path}: cell 1: 2 figures with an alternative text; show one figure a cell\n")
    assert path.read_text() == before


def test_the_command_writes_as_nbstripout_does_and_leaves_the_rest_alone(tmp_path):
    path, other = tmp_path / "book.ipynb", tmp_path / "other.ipynb"
    path.write_text(json.dumps(notebook(({}, ["重心へのモーフィング"]))))
    other.write_text(json.dumps(notebook(({}, [""]))))
    before = other.read_text()
    assert alt_text.main([str(path), str(other)]) == 0
    text = path.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), ensure_ascii=False, indent=1) + "\n"
    assert json.loads(text)["cells"][1]["metadata"] == {"mystnb": {"image": {"alt": "重心へのモーフィング"}}}
    assert other.read_text() == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"book.ipynb", "other.ipynb"}


def test_notebooks_clean_keeps_the_output_s_text_and_copies_it(tmp_path):
    book = notebook(({"papermill": {"duration": 1}}, [SAYS]))
    book |= {"metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    for place, cell in enumerate(book["cells"]):
        cell |= {"id": f"cell-{place}"} | ({"execution_count": 1} if cell["cell_type"] == "code" else {})
    path = tmp_path / "book.ipynb"
    path.write_text(json.dumps(book))
    command = [ROOT / "notebooks/clean", path]
    path_of_python = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    done = subprocess.run(command, env=os.environ | path_of_python, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    cell = json.loads(path.read_text(encoding="utf-8"))["cells"][1]
    assert cell["metadata"] == {"mystnb": {"image": {"alt": SAYS}}}
    assert cell["outputs"][0]["metadata"] == {"image/png": {"alt": SAYS}}
