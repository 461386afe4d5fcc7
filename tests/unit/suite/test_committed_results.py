"""What is committed under results/: real runs of committed code, and tables that say what the records say."""

import filecmp
import json
import re
import shutil
from pathlib import Path

import pytest

from xai_utils import suite
from xai_utils.suite import claims, readme, report
from xai_utils.suite.run import SIZE_LIMIT

ROOT = Path(__file__).parents[3]
RECORDS = sorted((ROOT / "results").glob("[!q]*/*/*/seed_*/record.json"))
NAMES = ["/".join(path.parts[-5:-1]) for path in RECORDS]


@pytest.mark.parametrize("path", RECORDS, ids=NAMES)
def test_a_record_is_a_whole_run_of_a_clean_tree(path):
    record = suite.load_record(path)
    assert path.parent == ROOT / "results" / record.profile / record.paper / record.arm / f"seed_{record.seed}"
    assert record.provenance.dirty is False
    assert re.fullmatch("[0-9a-f]{40}", record.provenance.commit)
    assert record.provenance.data
    real = {entry.variant for entry in record.provenance.data if entry.name != "rectangles"}  # these are generated
    assert real <= {"prepared", "origin"}
    files = {entry.name for entry in path.parent.iterdir()}
    expected = {f"{name}.png" for name in record.figures} | {f"{name}.npz" for name in record.arrays}
    assert files == expected | {"record.json", "notebook.ipynb"}
    assert sum(entry.stat().st_size for entry in path.parent.iterdir()) <= SIZE_LIMIT


@pytest.mark.parametrize("path", RECORDS, ids=NAMES)
def test_the_executed_notebook_ran_to_its_end_and_names_no_machine(path):
    text = (path.parent / "notebook.ipynb").read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    shown = json.dumps([{k: v for k, v in o.get("data", o).items() if k != "image/png"} for o in outputs])
    assert not re.search(r"/(home|root|tmp|work|Users)/", shown)


def test_every_notebook_has_three_seeds_of_its_first_arm():
    for notebook in (ROOT / "notebooks").glob("0[1-9]_*.ipynb"):
        first = ("standard", notebook.stem, suite.arms(notebook.stem)[0])
        seeds = {path.parts[-2] for path in RECORDS if path.parts[-5:-2] == first}
        assert {"seed_0", "seed_1", "seed_2"} <= seeds


def test_the_readme_shows_the_committed_records(tmp_path):
    copy = Path(shutil.copy(ROOT / "README.md", tmp_path))
    assert readme.update_readme(copy, ROOT / "results") is False, "run make tables"


def test_every_headline_of_a_paper_is_shown():
    for stem, paper in claims.load().papers.items():
        records = [r for r in report.load(ROOT / "results", "standard") if r.paper == stem]
        assert paper.headlines
        assert all(readme._headline(paper, entry, records, {}) for entry in paper.headlines), stem


def test_the_tables_are_those_of_the_committed_records(tmp_path):
    results = tmp_path / "results"
    shutil.copytree(ROOT / "results", results, ignore=shutil.ignore_patterns("quick", "*.npz", "*.png", "*.ipynb"))
    before = {path.name for path in (results / "tables").glob("*.csv")}
    report.export(results)
    after = sorted(path.name for path in (results / "tables").glob("*.csv"))
    assert set(after) == before, "run make tables"
    _, differ, errors = filecmp.cmpfiles(ROOT / "results" / "tables", results / "tables", after, shallow=False)
    assert not differ + errors, "run make tables"
