"""A new paper by the steps of docs/add_a_paper.md before its records: six places, and everything finds it."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from runs import ROOT, without_settings

PAPER = "06_brightness"
PLACES = {
    "results/reported.yaml",
    "CITATION.cff",
    "xai_utils/papers/p6_brightness.py",
    f"notebooks/parameters/{PAPER}.yaml",
    f"notebooks/profiles/quick/{PAPER}.yaml",
    f"notebooks/{PAPER}.ipynb",
}
REPORTED = {
    "title": "Bright pixels explain digits",
    "citation": "Nobody (2026)",
    "headlines": [{"metric": "P6.1.share", "says": "images that are brighter inside"}],
    "values": [{"id": "P6.1.share", "value": 1.0, "place": "§2"}],
    "claims": {
        "P6.1": {
            "kind": "relation",
            "words": "Digits are brighter in the middle.",
            "shown": {"metric": "P6.1.share", "says": "share of such digits"},
            "statement": "Digits are brighter in the middle than at the border.",
            "place": "§2",
            "rule": {"conditions": [{"metric": "P6.1.share", "test": "above", "bound": 0.5}]},
        }
    },
}
PARAMETERS = """
arms:
  main: {}
  few: {limit: 20}
profile: {type: str, default: quick, choices: [quick], help: "size of the run"}
seed: {type: int, default: 0, minimum: 0, help: "rules the bootstrap"}
limit: {type: int, default: 100, minimum: 2, help: "images at most"}
"""
MODULE = '''"""Paper 6: is a digit brighter in the middle?"""

from torch import Tensor


def brighter_inside(images: Tensor) -> Tensor:
    """Whether each image (N, 1, 28, 28) is brighter within its middle half than outside: (N,) bool."""
    inside = images[:, 0, 7:21, 7:21].mean((1, 2))
    return inside > images.mean((1, 2, 3))
'''
CELLS = [
    ("parameters", 'profile: str = "quick"\narm: str = "main"\nseed: int = 0\nlimit: int = 100'),
    ("", "from xai_utils import data, suite\nfrom xai_utils.metrics import estimates\n"
         f"from xai_utils.papers import p6_brightness as paper\n\nrun = suite.start('{PAPER}', parameters=globals())"),
    ("", "digits = data.load('digits', split='test', limit=limit)\nrun.uses(digits.provenance)\n"
         "share = estimates.mean(paper.brighter_inside(digits.images).double(), None, seed)\n"
         "run.measure_all({'share': share}, prefix='P6.1')"),
    ("", "run.record()"),
]  # fmt: skip


def command(tree, *words, **more):
    chosen = without_settings(os.environ) | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"} | more
    chosen["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), chosen["PATH"]])
    done = subprocess.run(list(map(str, words)), cwd=tree, env=chosen, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy without records, with a sixth paper."""
    tree = tmp_path_factory.mktemp("sixth") / "tree"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout: which files belong to the suite cannot be told")
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith("results/standard/") and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    before = {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    reported = tree / "results/reported.yaml"
    content = yaml.safe_load(reported.read_text(encoding="utf-8"))
    content["papers"][PAPER] = REPORTED
    reported.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    with (tree / "CITATION.cff").open("a", encoding="utf-8") as stream:
        stream.write('  - {type: article, title: "Bright pixels explain digits", authors: [{name: Nobody}]}\n')
    (tree / "xai_utils/papers/p6_brightness.py").write_text(MODULE, encoding="utf-8")
    (tree / f"notebooks/parameters/{PAPER}.yaml").write_text(PARAMETERS)
    (tree / f"notebooks/profiles/quick/{PAPER}.yaml").write_text("profile: quick\n")
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    cells = [
        {"cell_type": "code", "id": f"cell-{i}", "source": source, "outputs": [], "execution_count": None,
         "metadata": {"tags": [tag] if tag else []}}
        for i, (tag, source) in enumerate(CELLS)
    ]  # fmt: skip
    book = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (tree / f"notebooks/{PAPER}.ipynb").write_text(json.dumps(book))
    after = {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert {name for name in after if after[name] != before.get(name)} == PLACES
    return tree


def test_the_runner_the_batch_and_the_report_find_it(tree):
    command(tree, "notebooks/run", PAPER, "quick", "few", "3")
    folder = tree / f"results/quick/{PAPER}/few/seed_3"
    assert {path.name for path in folder.iterdir()} == {"record.json", "notebook.ipynb"}
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    assert record["parameters"]["limit"] == 20  # the arm's
    assert record["metrics"]["P6.1.share"]["n"] == 20
    assert "xai_utils/papers/p6_brightness.py" in record["provenance"]["modules"]
    plan = "from xai_utils.suite import batch; jobs = batch.plan('quick', '', 'all', '3')"
    shown = f"{plan}; print([job.key for job in jobs if not job.reason])"
    assert command(tree, sys.executable, "-c", shown).strip() == f"['quick/{PAPER}/few/seed_3']"
    command(tree, "notebooks/run", PAPER)
    table = command(tree, sys.executable, "-m", "xai_utils.suite.report")
    assert "P6.1" in table
    assert "Bright pixels explain digits" in table


def test_the_tests_that_know_all_papers_take_it_in(tree):
    asked = ["tests/unit/suite/test_reported.py", "tests/unit/test_import.py::test_imports_run_downwards_only"]
    asked += ["tests/unit/test_environment.py::test_citation_names_every_paper"]
    said = command(tree, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *asked)
    assert "failed" not in said
