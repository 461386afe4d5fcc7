"""Provenance: hashes follow what computes and nothing else; git and the machine are read without private names."""

import getpass
import json
import os
import platform
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from xai_utils import seeds
from xai_utils.suite import provenance
from xai_utils.suite.equivalence.history import History

SOURCE = '''
"""Module docstring."""
from dataclasses import dataclass
import math  # a comment


@dataclass(frozen=True)
class Point:
    """A point."""

    x: float | None = None

    @property
    def far(self) -> bool:
        """Far away."""
        return self.x is not None and self.x > 1e3


def name(p: Point, *rest: int, scale: float = 2.0, **more) -> str:
    match p:
        case Point(x=None) | Point(x=0.0):
            return "none"
        case Point(x=x) if x > 0:
            return f"{x!r:>{len(rest)}.2f}" "tail" f"{x * scale=}{{}}" u"ü"
    return {**more, "a": [*rest][1:2]}["a"]
'''
# equal on Python 3.11, 3.12 and 3.13: a changed value makes every committed record stale
SOURCE_HASH = "2e6cca41d29aff7d"


def test_hash_is_fixed_across_python_versions():
    assert provenance.hash_python(SOURCE) == SOURCE_HASH


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Module docstring."""', ""),
        ('    """A point."""\n', '    """Another text,\n    of two lines."""\n'),
        ('        """Far away."""\n', ""),
        ("  # a comment", ""),
        ("import math", "import math\n\n\n# another comment\n"),
        ("1e3", "1_000.0"),
        ('"none"', "'none'"),
        ('"none"', '("none")'),
        ('"none"', 'u"none"'),
        ('u"ü"', '"\\u00fc"'),
    ],
)
def test_layout_comments_and_docstrings_do_not_count(old, new):
    assert old in SOURCE
    assert provenance.hash_python(SOURCE.replace(old, new)) == provenance.hash_python(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1e3", "1e4"),
        ("> 1e3", ">= 1e3"),
        ("x > 0", "x < 0"),
        ("= 2.0", "= 2"),
        ("frozen=True", "frozen=1"),
        ("    @property\n", ""),
        ('"tail"', '"tails"'),
        ("!r", "!s"),
        (".2f", ".3f"),
        ("float | None = None", "float | None"),
        ("float | None = None", "float = None"),
        ("[1:2]", "[1::2]"),
        ("**more, ", ""),
        ("*rest: int", "rest: int"),
        ("import math", "import cmath"),
        ('return "none"', 'pass; "none"'),
    ],
)
def test_everything_that_computes_counts(old, new):
    assert old in SOURCE
    assert provenance.hash_python(SOURCE.replace(old, new)) != provenance.hash_python(SOURCE)


def test_a_function_of_a_docstring_only_is_not_a_class_of_one():
    assert provenance.hash_python("def f():\n    'a'") == provenance.hash_python("def f():\n    'b'")
    assert provenance.hash_python("x = 'a'") != provenance.hash_python("x = 'b'")
    assert provenance.hash_python("{**a, 'b': 1}") != provenance.hash_python("{'b': 1}")


def cell(kind, source, tags=(), **more):
    outputs = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "source": source, "metadata": {"tags": list(tags)}, **outputs, **more}


def book(*cells, **metadata):
    return json.dumps({"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


BASE = (cell("markdown", "Some prose"), cell("code", "seed = 0", ["parameters"]), cell("code", "x = 1\ny = x + 1"))


def test_notebook_hash_sees_code_cells_only():
    base = provenance.hash_notebook(book(*BASE))
    for same in (
        book(cell("markdown", "Other prose"), *BASE[1:]),
        book(BASE[0], cell("code", "seed = 5\nlr = 1", ["parameters"]), BASE[2]),
        book(*BASE[:2], cell("code", "seed = 7", ["injected-parameters"]), BASE[2]),
        book(*BASE[:2], cell("code", "x = 1  # one\n\ny = x+1", ["nbval-ignore-output"], execution_count=4)),
        book(*BASE[:2], cell("code", ["x = 1\n", "y = x + 1"])),
        book(*BASE, cell("code", "# nothing"), cell("code", ""), kernelspec={"name": "python3"}),
    ):
        assert provenance.hash_notebook(same) == base
    for other in (
        book(*BASE[:2], cell("code", "x = 1\ny = x + 2")),
        book(*BASE, cell("code", "z = 1")),
        book(*BASE[:2], cell("code", "y = x + 1"), cell("code", "x = 1")),
        book(BASE[0], cell("code", "seed = 0"), BASE[2]),  # no longer tagged
    ):
        assert provenance.hash_notebook(other) != base


def test_magics_are_code_and_operators_are_no_magics():
    def of(source):
        return provenance.hash_notebook(book(cell("code", source)))

    assert of("%matplotlib inline\nx = 1") == of("%matplotlib inline\nx = 1  # one")
    assert of("%matplotlib inline\nx = 1") != of("%matplotlib widget\nx = 1")
    assert of("%matplotlib inline\nx = 1") != of("%matplotlib inline\nx = 2")
    assert of("%%time\nx = 1") == of("%%time\nx=1")
    assert of("%%time\nx = 1") != of("%%time\nx = 2")
    assert of("if x:\n    !ls") != of("if x:\n    !pwd")
    assert of("y = (5\n% 3)") == of("y = (5 % 3)")
    assert of("%%bash\nfor a in 1 2; do echo $a; done") == of("%%bash\nfor a in 1 2; do echo $a; done  \n")
    assert of("%%bash\nfor a in 1 2; do echo $a; done") != of("%%bash\nfor a in 1 3; do echo $a; done")


def test_yaml_is_hashed_by_content(tmp_path):
    path = tmp_path / "p.yaml"

    def of(text):
        path.write_text(text)
        return provenance.hash_file(path)

    assert of("a: 1\nb: [1, 2]\n") == of("# comment\nb:\n  - 1\n  - 2\na: 1")
    assert of("a: 1\nb: [1, 2]\n") != of("a: 1\nb: [2, 1]\n")
    assert of("a: 1.0e-4") == of("a: 0.0001")
    assert of("a: 1.0e-4") != of("a: 1e-4")  # YAML reads the second as text
    assert of("") == of("# only a comment")


@pytest.mark.parametrize(("name", "text"), [("a.py", "def"), ("a.ipynb", "{"), ("b.ipynb", "{}"), ("a.yaml", "a: [")])
def test_a_file_that_cannot_be_parsed_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}: cannot be hashed"):
        provenance.hash_file(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        provenance.hash_file(tmp_path / "missing.py")


def test_module_hashes_name_the_loaded_modules_the_notebook_and_the_profile(tmp_path):
    (tmp_path / "notebooks/profiles/quick").mkdir(parents=True)
    assert not [k for k in provenance.module_hashes(tmp_path, "p", "quick") if k.startswith("notebooks")]
    (tmp_path / "notebooks/p.ipynb").write_text(book(*BASE))
    (tmp_path / "notebooks/profiles/quick/p.yaml").write_text("epochs: 3")
    writers = {"suite/claims", "suite/run", "plot", "suite/provenance", "suite/report"}
    for writer in writers:
        import_module(f"xai_utils.{writer.replace('/', '.')}")
    hashes = provenance.module_hashes(tmp_path, "p", "quick")
    assert hashes["xai_utils/seeds.py"] == provenance.hash_python(Path(seeds.__file__).read_text())
    assert hashes["notebooks/p.ipynb"] == provenance.hash_notebook(book(*BASE))
    assert "notebooks/profiles/quick/p.yaml" in hashes
    assert not {f"xai_utils/{name}.py" for name in writers} & hashes.keys()  # they write down, they do not compute
    assert not [k for k in hashes if k.endswith("__init__.py")]
    assert list(hashes) == sorted(hashes)


def test_a_reader_of_data_brings_its_lists_of_images_and_boxes(tmp_path):
    import_module("xai_utils.data.sets.cifar10")
    used, others = ["boxes/cifar10_cats_dogs.csv", "splits/cifar10.csv"], ["splits/imagenet.csv", "splits/cifar10.txt"]
    for name in used + others:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text("id,split\n1,train\n")
    before = provenance.module_hashes(tmp_path, "p", "quick")
    assert [key for key in before if key.startswith("data/")] == [f"data/{name}" for name in used]
    (tmp_path / "data/splits/cifar10.csv").write_text("id,split\n1,test\n")
    after = provenance.module_hashes(tmp_path, "p", "quick")
    assert [key for key in after if after[key] != before[key]] == ["data/splits/cifar10.csv"]


def git(folder, *words):
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    command = ["git", "-C", str(folder), *words]
    env = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull}
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.strip()


def test_git_state_of_a_checkout(tmp_path, monkeypatch):
    for name in ("xai_utils/a.py", "results/r.json", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    git(tmp_path, "init", "-q")
    assert provenance.git_state(tmp_path) == ("unknown", None)  # nothing committed yet
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.git_state(tmp_path) == (commit, False)
    for name, dirty in (
        ("results/r.json", False),
        ("results/new.json", False),
        ("notes.txt", False),
        ("xai_utils/new.py", True),
        ("xai_utils/größe.py", True),
        ("README.md", True),
    ):
        before = (tmp_path / name).read_text() if (tmp_path / name).exists() else None
        (tmp_path / name).write_text("2")
        assert provenance.git_state(tmp_path) == (commit, dirty), name
        if before is None:
            (tmp_path / name).unlink()
        else:
            (tmp_path / name).write_text(before)
    # unpacked inside somebody else's checkout: that commit is not ours
    assert provenance.git_state(tmp_path / "xai_utils") == ("unknown", None)
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert provenance.git_state(tmp_path) == ("unknown", None)


def test_git_state_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_state(tmp_path) == ("unknown", None)


@pytest.fixture
def two_repositories(tmp_path):
    """A checkout and a stranger's, each with a commit."""
    for name in ("ours", "theirs"):
        (tmp_path / name / "xai_utils").mkdir(parents=True)
        (tmp_path / name / "xai_utils/a.py").write_text(name)
        git(tmp_path / name, "init", "-q")
        git(tmp_path / name, "add", ".")
        git(tmp_path / name, "commit", "-qm", name)
    return tmp_path / "ours", tmp_path / "theirs"


def test_variables_that_lead_to_another_repository_are_not_followed_and_named(two_repositories, monkeypatch):
    ours, theirs = two_repositories
    commit = git(ours, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(theirs / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(theirs))
    with pytest.warns(UserWarning, match=f"GIT_DIR, GIT_WORK_TREE set: not followed, .* the commit of {ours}"):
        assert provenance.git_state(ours) == (commit, False)
    assert History(ours).head == commit


def test_a_repository_of_another_owner_is_named_with_the_way_out(two_repositories, monkeypatch):
    ours, _ = two_repositories
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch, for tests
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    fix = f"git config --global --add safe.directory {ours}"
    with pytest.warns(UserWarning, match=f"names no commit: another user owns {ours}.*{fix}"):
        assert provenance.git_state(ours) == ("unknown", None)


def test_environment_describes_the_machine_and_nobody():
    found = provenance.environment()
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"] == torch.__version__
    assert found["packages"]["numpy"] == np.__version__
    assert found["threads"] == torch.get_num_threads()
    hardware = found["hardware"]
    assert 1 <= hardware["cores"] <= psutil.cpu_count()
    assert hardware["memory_gib"] == pytest.approx(psutil.virtual_memory().total / 2**30, abs=0.06)
    assert hardware["cpu"]
    said = f"CPU capability usage: {hardware['kernels']}\n"  # of another kind than by default
    assert said in torch.__config__.show() or hardware["kernels"] == "DEFAULT"
    assert (hardware["gpu"] is None) == (not torch.cuda.is_available())
    text = json.dumps(found)
    assert platform.node() not in text
    assert str(Path.home()) not in text
    assert os.getcwd() not in text
    assert getpass.getuser() not in text.split('"')


@pytest.mark.parametrize(("system", "peak"), [("linux", 200 * 2**10), ("darwin", 200 * 2**20)])
def test_peak_memory_is_counted_in_mib(monkeypatch, system, peak):
    current = psutil.Process().memory_info().rss / 2**20
    assert 0.9 * current < provenance.environment()["peak_memory_mib"] < psutil.virtual_memory().total / 2**20
    usage = types.SimpleNamespace(ru_maxrss=peak)
    monkeypatch.setattr(provenance, "resource", types.SimpleNamespace(getrusage=lambda who: usage, RUSAGE_SELF=0))
    monkeypatch.setattr(sys, "platform", system)
    assert provenance.environment()["peak_memory_mib"] == 200.0
