"""The fingerprint of a training's code: what counts and what does not, and that it is the same in another process."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from xai_utils import fingerprint
from xai_utils.fingerprint import code_of
from xai_utils.papers import shared

SOURCE = """
import math
from torch import nn
from xai_utils.papers import shared
SCALE = 2.0
TABLE = {"a": 1, "b": [1, 2]}

def inner(x):
    return x * SCALE

def loss(model, batch, generator, weight=1.0):
    total = shared.cross_entropy(model, batch, generator)["loss"]
    return inner(total) * weight + TABLE["a"] + math.pi

def recursive(n):
    return recursive(n - 1) if n else other(n)

def other(n):
    return recursive(n)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(2, 3)

    def forward(self, x):
        return self.body(x)

    @property
    def size(self):
        return 3

    @staticmethod
    def helper(x):
        return x + 1

def made(value):
    def closed(x):
        return x + value
    return closed

def kinds(x):
    return x in {"a", "b", "c", "d"}
"""


def module(tmp_path, monkeypatch, *changes):
    """The source with some changes, as a module that is imported anew."""
    text = SOURCE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "user_code.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("user_code", None)
    sys.path_importer_cache.clear()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import user_code

    monkeypatch.setitem(sys.modules, "user_code", user_code)
    return user_code


def hashed(found):
    return code_of(found.loss, found.recursive, found.Net(), found.made(3), found.kinds)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x * SCALE", "x / SCALE"),  # what a loss calls
        ("SCALE = 2.0", "SCALE = 2.5"),
        ('{"a": 1, "b": [1, 2]}', '{"a": 1, "b": [1, 3]}'),
        ('{"a": 1, "b": [1, 2]}', '{"a": 1, "b": [1, 1]}'),
        ("weight=1.0", "weight=2.0"),
        ("nn.Linear(2, 3)", "nn.Linear(2, 4)"),
        ("self.body(x)", "self.body(-x)"),
        ("return 3", "return 4"),
        ("return x + 1", "return x + 2"),
        ("return x + value", "return x - value"),
        ("other(n)", "inner(n)"),
        ('"c", "d"}', '"c", "e"}'),
        ("math.pi", "math.e"),
    ],
)
def test_a_change_of_what_is_reached_counts(tmp_path, monkeypatch, old, new):
    before = hashed(module(tmp_path, monkeypatch))
    assert hashed(module(tmp_path, monkeypatch, (old, new))) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def inner(x):\n", 'def inner(x):\n    """Twice."""\n\n    # a comment\n'),
        ("SCALE = 2.0", "SCALE = 2.0\nUNUSED = 7"),
        ("def kinds", "def never():\n    return 8\n\n\ndef kinds"),
        ("import math", "import math\n\n\n"),
    ],
)
def test_what_computes_nothing_does_not_count(tmp_path, monkeypatch, old, new):
    before = hashed(module(tmp_path, monkeypatch))
    assert hashed(module(tmp_path, monkeypatch, (old, new))) == before


def test_the_packages_own_code_counts_where_it_is_reached(tmp_path, monkeypatch):
    found = module(tmp_path, monkeypatch)
    before = hashed(found)

    def cross_entropy(model, batch, _generator):
        return {"loss": nn.functional.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.1)}

    monkeypatch.setattr(shared, "cross_entropy", cross_entropy)
    assert hashed(found) != before
    monkeypatch.undo()


def test_it_is_the_same_in_another_process_whatever_was_loaded_before(tmp_path, monkeypatch):
    here = hashed(module(tmp_path, monkeypatch))
    code = "import sys; sys.path.insert(0, sys.argv[1]); import xai_utils.explain.lrp, user_code as u; "
    code += "from xai_utils.fingerprint import code_of; "
    code += "print(code_of(u.loss, u.recursive, u.Net(), u.made(3), u.kinds))"
    for seed in ("1", "2"):  # the order of sets
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(fingerprint.__file__).parents[1])}
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == here


def test_values_count_by_what_they_hold():
    def made(value):
        return lambda: value

    values = [torch.zeros(2), torch.ones(2), torch.zeros(2, dtype=torch.bfloat16), torch.zeros(1, 2), np.zeros(2)]
    values += [np.ones(2), {"a": 1}, {"a": 2}, {"b": 1}, [1, 1, 2], [1, 2, 2], (1, (1, 2)), 1, 1.0, True, "1", None]
    values += [functools.partial(made, 1), functools.partial(made, 2), nn.Dropout(0.1), nn.Dropout(0.2), torch.relu]
    hashes = [code_of(made(value)) for value in values]
    assert len(set(hashes)) == len(values)
    assert hashes == [code_of(made(value)) for value in values]
    assert code_of(made(np.array([{}], dtype=object))) == code_of(made(np.array([{}], dtype=object)))


def test_the_environment_names_python_packages_and_threads():
    found = fingerprint.environment()
    assert found["threads"] == torch.get_num_threads()
    assert f"torch {torch.__version__}" in found["packages"]
    assert f"numpy {np.__version__}" in found["packages"]
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
