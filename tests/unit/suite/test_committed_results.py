"""What is committed under results/: real runs of committed code, and tables that say what the records say."""

import filecmp
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xai_utils import suite
from xai_utils.suite import batch, claims, readme, report
from xai_utils.suite.run import SIZE_LIMIT

ROOT = Path(__file__).parents[3]
RECORDS = sorted((ROOT / "results").glob("[!q]*/*/*/seed_*/record.json"))
PAPERS = sorted({path.parts[-4] for path in RECORDS})


def of(paper):
    """The committed records of a paper, each with the name that a failure shows."""
    return [("/".join(path.parts[-5:-1]), path) for path in RECORDS if path.parts[-4] == paper]


def faults_of_a_record(path):
    """What is wrong with a committed record: it is no whole run of a clean tree, or its files are not its own."""
    record, faults = suite.load_record(path), []
    if path.parent != ROOT / "results" / record.profile / record.paper / record.arm / f"seed_{record.seed}":
        faults.append("lies in another run's place")
    if record.provenance.dirty is not False or not re.fullmatch("[0-9a-f]{40}", record.provenance.commit):
        faults.append(f"made from {record.provenance.commit}, dirty: {record.provenance.dirty}")
    real = {entry.variant for entry in record.provenance.data if entry.name != "rectangles"}  # these are generated
    if not record.provenance.data or not real <= {"prepared", "origin"}:
        faults.append(f"made with the data {record.provenance.data}")
    kept = {f"{name}.npz" for name in record.arrays} | {"record.json"}
    if path.parent == batch.lowest(path.parent.parent):
        kept |= {f"{name}.png" for name in record.figures} | {"notebook.ipynb"}
        kept |= {"images.csv"} & {entry.name for entry in path.parent.iterdir()}  # for its readers; no record needs it
    if odd := {entry.name for entry in path.parent.iterdir()} ^ kept:
        faults.append(f"files that are missing or too many: {sorted(odd)}")
    if (size := sum(entry.stat().st_size for entry in path.parent.iterdir())) > SIZE_LIMIT:
        faults.append(f"{size} bytes")
    return faults


def faults_of_a_notebook(path):
    """What an executed notebook should not show: a cell that did not run, an error, a path of a machine."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    shown = json.dumps([{k: v for k, v in o.get("data", o).items() if k != "image/png"} for o in outputs])
    faults = ["a cell did not run"] * (not all(cell["execution_count"] for cell in cells))
    faults += ["a cell failed"] * any(output["output_type"] == "error" for output in outputs)
    return faults + [f"names {found[0]}" for found in re.finditer(r"/(home|root|tmp|work|Users)/", shown)]


def test_every_paper_has_committed_records():
    assert [path.stem for path in sorted((ROOT / "notebooks").glob("0[1-9]_*.ipynb"))] == PAPERS


@pytest.mark.parametrize("paper", PAPERS)
def test_each_record_is_a_whole_run_of_a_clean_tree(paper):
    assert [f"{name}: {fault}" for name, path in of(paper) for fault in faults_of_a_record(path)] == []


@pytest.mark.parametrize("paper", PAPERS)
def test_each_executed_notebook_ran_to_its_end_and_names_no_machine(paper):
    notebooks = {name: path.with_name("notebook.ipynb") for name, path in of(paper)}
    kept = {name: path for name, path in notebooks.items() if path.is_file()}
    assert kept
    assert [f"{name}: {fault}" for name, path in kept.items() for fault in faults_of_a_notebook(path)] == []


def test_the_results_weigh_at_most_45_mb():
    listed = subprocess.run(["git", "ls-files", "-z", "results"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout: what is committed cannot be told from what is not")
    assert sum((ROOT / name).stat().st_size for name in listed.stdout.split("\0") if name) <= 45_000_000


def test_every_notebook_has_three_seeds_of_its_first_arm():
    for notebook in (ROOT / "notebooks").glob("0[1-9]_*.ipynb"):
        first = ("standard", notebook.stem, suite.arms(notebook.stem)[0])
        seeds = {path.parts[-2] for path in RECORDS if path.parts[-5:-2] == first}
        assert {"seed_0", "seed_1", "seed_2"} <= seeds


def test_the_pages_show_the_committed_records(tmp_path):
    for name, texts in readme.blocks(ROOT / "results").items():
        copy = Path(shutil.copy(ROOT / name, tmp_path))
        assert readme.update(copy, texts) is False, f"{name}: run make tables"


def test_every_headline_of_a_paper_is_shown():
    for stem, paper in claims.load().papers.items():
        records = [r for r in report.load(ROOT / "results", "standard") if r.paper == stem]
        assert paper.headlines
        assert all(readme._headline(paper, entry, records, {}) for entry in paper.headlines), stem


def test_the_tables_are_those_of_the_committed_records(tmp_path):
    results = tmp_path / "results"
    shutil.copytree(ROOT / "results", results, ignore=shutil.ignore_patterns("quick", "*.png", "*.ipynb"))
    before = {path.name for path in (results / "tables").glob("*.csv")}
    report.export(results)
    after = sorted(path.name for path in (results / "tables").glob("*.csv"))
    assert set(after) == before, "run make tables"
    _, differ, errors = filecmp.cmpfiles(ROOT / "results" / "tables", results / "tables", after, shallow=False)
    assert not differ + errors, "run make tables"
