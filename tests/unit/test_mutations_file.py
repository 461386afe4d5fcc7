"""tests/mutations.yaml still fits the code, and the runner tells killed, surviving and broken mutants apart."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
import mutants  # noqa: E402

MUTATIONS = mutants.load()


def test_names_are_unique_and_entries_complete():
    names = [mutation["name"] for mutation in MUTATIONS]
    assert len(names) == len(set(names))
    assert {frozenset(mutation) for mutation in MUTATIONS} == {frozenset({"name", "file", "old", "new", "tests"})}


def test_every_old_line_occurs_once_and_is_one_line():
    faults = []
    for mutation in MUTATIONS:
        try:
            mutants.mutated((ROOT / mutation["file"]).read_text(encoding="utf-8"), mutation["old"], mutation["new"])
        except (OSError, ValueError) as error:
            faults.append(f"{mutation['name']}: {error}")
        faults += [mutation["name"]] if "\n" in mutation["old"].strip("\n") else []
    assert not faults


def test_every_mutated_module_still_compiles():
    for mutation in MUTATIONS:
        if mutation["file"].endswith(".py"):
            text = (ROOT / mutation["file"]).read_text(encoding="utf-8")
            compile(mutants.mutated(text, mutation["old"], mutation["new"]), mutation["name"], "exec")


def test_every_listed_test_exists():
    for mutation in MUTATIONS:
        places = [argument for argument in mutation["tests"] if argument.startswith(("tests/", "notebooks/"))]
        assert places, mutation["name"]
        for place in places:
            file, _, function = place.partition("::")
            assert (ROOT / file).exists(), f"{mutation['name']}: {file}"
            function = function.partition("[")[0].rpartition("::")[2]
            assert not function or f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), mutation["name"]


@pytest.mark.parametrize("text", ["x = 2", "x = 1\nx = 1"])
def test_a_line_that_is_not_there_once_is_refused(text):
    with pytest.raises(ValueError, match="expected once"):
        mutants.mutated(text, "x = 1", "x = 3")
    with pytest.raises(ValueError, match="replaced by itself"):
        mutants.mutated("x = 1", "x = 1", "x = 1")


@pytest.fixture
def project(tmp_path):
    """A project of one function and one test, under git, with something that git ignores."""
    root = tmp_path / "project"
    (root / "xai_utils").mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "xai_utils" / "__init__.py").write_text("def double(x):\n    return 2 * x  # twice\n")
    (root / "tests" / "test_double.py").write_text("import xai_utils\ndef test(): assert xai_utils.double(3) == 6\n")
    (root / ".gitignore").write_text("ignored\n")
    (root / "ignored").write_text("")
    seed = root / "results/standard/01/main/seed_0"
    seed.mkdir(parents=True)
    (seed / "record.json").write_text("{}")
    (seed / "notebook.ipynb").write_text("{}")
    (seed / "judged.npz").write_text("")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def listed(root, *changes):
    tests = ["tests/test_double.py"]
    entries = [
        {"name": name, "file": "xai_utils/__init__.py", "old": "2 * x", "new": new, "tests": tests}
        for name, new in changes
    ]
    (root / "mutations.yaml").write_text(yaml.safe_dump(entries))
    return root / "mutations.yaml"


def test_runner_tells_killed_surviving_and_broken_apart(project, capsys):
    path = listed(project, ("wrong", "3 * x"), ("same", "x + x"), ("no name", "2 * y"))
    before = (project / "xai_utils" / "__init__.py").read_text()
    assert mutants.main([], path, project) == 1
    told = capsys.readouterr().out
    for said in ("killed", "wrong"), ("SURVIVED", "same"), ("DOES NOT RUN", "no name"):
        assert "{:26}{} ".format(*said) in told
    assert "1 of 3 mutants killed; not: same, no name" in told
    assert (project / "xai_utils" / "__init__.py").read_text() == before


def test_runner_is_content_when_all_are_killed(project, capsys):
    path = listed(project, ("wrong", "3 * x"), ("same", "x + x"), ("no python", "2 *"))
    assert mutants.main(["--only", "wrong"], path, project) == 0
    assert "1 of 1 mutants killed\n" in capsys.readouterr().out


def test_code_that_python_refuses_is_no_killed_mutant(project):
    (project / "xai_utils" / "__init__.py").write_text("def double(x: return")
    assert mutants.run_tests(project.resolve(), ["tests/test_double.py"])[0] == "broken"


def test_runner_stops_where_the_tests_are_red_without_a_mutation(project, capsys):
    path = listed(project, ("wrong", "3 * x"))
    (project / "tests" / "test_double.py").write_text("def test(): assert False\n")
    assert mutants.main([], path, project) == 1
    assert "0 of 1 mutants killed; not: (unchanged)" in capsys.readouterr().out


def test_a_copy_holds_what_git_would_commit_but_the_executed_runs(project, tmp_path):
    mutants.copy_of_tree(tmp_path / "copy", project)
    names = {str(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*") if p.is_file()}
    kept = {f"results/standard/01/main/seed_0/{name}" for name in ("record.json", "judged.npz")}
    assert names == {".gitignore", "xai_utils/__init__.py", "tests/test_double.py"} | kept


def test_each_selection_is_run_once_without_a_mutation_and_named_tests_of_a_file_together():
    selections = [["a.py::x"], ["a.py::y", "b.py::z"], ["a.py::x"], ["c.py", "-k", "w"], ["c.py", "-k", "w"]]
    found = mutants.baselines([{"name": str(k), "tests": tests} for k, tests in enumerate(selections)])
    assert [entry["tests"] for entry in found] == [["a.py::x", "a.py::y"], ["b.py::z"], ["c.py", "-k", "w"]]
