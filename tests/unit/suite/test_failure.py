"""What is told of a failed notebook: the words of a refusal, or nothing, so that the traceback is shown."""

import json
import sys

import numpy as np
import pytest
from IPython.core.ultratb import AutoFormattedTB

from xai_utils.data import grouping, store
from xai_utils.suite import failure


def raises(text="of the caller"):
    raise ValueError(text)


CALLS = {
    "refused": lambda: store.root_of(""),
    "a fault in a line of the suite": lambda: grouping.nearly_equal(np.zeros(3)),
    "a fault below the suite": lambda: grouping.grouped_split((raises() for _ in "ab"), ["a", "b"], seed=0),
    "a fault above the suite": raises,
}


def left(folder, call):
    """A notebook whose third cell ended with what the call raises, written as a kernel does."""
    try:
        call()
    except ValueError as error:
        lines = AutoFormattedTB(mode="Context").structured_traceback(*sys.exc_info())
        output = {"output_type": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": lines}
    path = folder / "notebook.ipynb"
    path.write_text(json.dumps({"cells": [{}, {"outputs": []}, {"execution_count": 3, "outputs": [output]}]}))
    return path


@pytest.mark.parametrize("kind", CALLS)
def test_only_what_a_line_of_the_suite_raises_is_a_refusal(tmp_path, kind, capsys):
    path = left(tmp_path, CALLS[kind])
    assert failure.main([str(path)]) == (0 if kind == "refused" else 1)
    said = capsys.readouterr().err
    if kind == "refused":
        told = "ValueError: folder is empty: name the folder of your images, such as -p folder /path/to/images\n"
        assert said == f"cell [3] refused what it was given:\n{told}"
    else:
        assert said == ""


def test_a_notebook_without_a_failed_cell_or_none_at_all_says_nothing(tmp_path, capsys):
    path = tmp_path / "notebook.ipynb"
    for content in (None, "", "{}", json.dumps({"cells": []})):
        if content is not None:
            path.write_text(content)
        assert failure.main([str(path)]) == 1
    assert capsys.readouterr().err == ""


def test_another_kind_of_error_keeps_its_traceback(tmp_path):
    path = left(tmp_path, CALLS["refused"])
    path.write_text(path.read_text().replace('"ename": "ValueError"', '"ename": "KeyError"'))
    assert failure.refusal(path) is None
