"""The batch: which runs it plans, what it refuses, and that it resumes, keeps going and follows content."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("snakemake", reason="the extra [batch] is not installed")
REPOSITORY = Path(__file__).parents[2]
FAKE_RUN = """#!/usr/bin/env bash
echo "$@ $OMP_NUM_THREADS" >> calls.txt
[ "$4" != 7 ] || { echo "seed 7 fails" >&2; exit 1; }
echo '{}' > "${XAI_RESULTS:-results}/$2/$1/$3/seed_$4/record.json"
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of the Snakefile beside two notebooks and a runner that only takes notes."""
    shutil.copy(REPOSITORY / "Snakefile", tmp_path)
    arms = {"01_first": ["main", "improved"], "02_second": None}
    cell = {"cell_type": "code", "metadata": {}, "source": "x = 1", "outputs": [], "execution_count": 1}
    for folder in ("notebooks/parameters", "notebooks/profiles/quick"):
        (tmp_path / folder).mkdir(parents=True)
    for paper, names in arms.items():
        (tmp_path / f"notebooks/{paper}.ipynb").write_text(json.dumps({"cells": [cell]}))
        (tmp_path / f"notebooks/profiles/quick/{paper}.yaml").write_text("{}\n")
        schema = "arms:\n" + "".join(f"  {name}: {{}}\n" for name in names) if names else "seed: {type: int}\n"
        (tmp_path / f"notebooks/parameters/{paper}.yaml").write_text(schema)
    run = tmp_path / "notebooks/run"
    run.write_text(FAKE_RUN)
    run.chmod(0o755)
    (tmp_path / "xai_utils").mkdir()  # stands in for the real report
    (tmp_path / "xai_utils/report.py").write_text("import sys\nprint('REPORT', *sys.argv[1:])\n")
    return tmp_path


def snakemake(checkout, *arguments):
    environment = {k: v for k, v in os.environ.items() if k not in ("XAI_RESULTS", "SNAKEMAKE_PROFILE")}
    environment |= {"OMP_NUM_THREADS": "1", "HOME": str(checkout), "XDG_CACHE_HOME": str(checkout / ".cache")}
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--config", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=120)


def planned(done):
    """The records that a dry run would make."""
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    outputs = [line.split("output: ")[1].strip() for line in lines if line.strip().startswith("output: ")]
    return sorted(outputs)


def test_a_dry_run_plans_papers_times_arms_times_seeds(checkout):
    got = planned(snakemake(checkout, "profile=quick", "papers=01_first 02_second", "seeds=0..2", "arms=main", "-n"))
    expected = [f"results/quick/{p}/main/seed_{k}/record.json" for p in ("01_first", "02_second") for k in range(3)]
    assert got == sorted(expected)


def test_the_default_is_every_arm_of_the_parameter_file_and_seeds_may_be_a_list(checkout):
    got = planned(snakemake(checkout, "papers=01_first", "seeds=0,3", "arms=", "-n"))
    assert got == sorted(
        f"results/quick/01_first/{a}/seed_{k}/record.json" for a in ("main", "improved") for k in (0, 3)
    )


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("seeds=2..0", "SEEDS: '2..0' is no seed or range of seeds; write 0..2 or 0,3"),
        ("papers=03_none", "PAPERS: no notebook 03_none; there are: 01_first, 02_second"),
        ("arms=improved", "ARMS: 02_second has no arm improved; it has: main"),
        ("profile=standard", "PROFILE: 01_first has no profile 'standard'; it has: quick"),
    ],
)
def test_bad_requests_say_what_is_expected(checkout, argument, sentence):
    done = snakemake(checkout, argument, "-n")
    assert done.returncode != 0
    assert sentence in " ".join((done.stdout + done.stderr).split())
    assert not (checkout / "results").exists()


def test_it_keeps_going_retries_resumes_and_follows_content_not_time(checkout):
    def calls():
        made = (checkout / "calls.txt").read_text().splitlines()
        (checkout / "calls.txt").unlink()
        return sorted(made)

    def records(*seeds):
        return [f"results/quick/01_first/main/seed_{k}/record.json" for k in seeds]

    plan = ["papers=01_first", "arms=main", "seeds=0,7", "--keep-going"]
    failed = snakemake(checkout, *plan)  # seed 7 fails, and once more; seed 0 is there
    assert failed.returncode != 0
    assert "REPORT --profile quick" in failed.stdout + failed.stderr
    assert "seed 7 fails" in (checkout / ".snakemake/log/runs/quick.01_first.main.seed_7.log").read_text()
    assert calls() == ["01_first quick main 0 2"] + ["01_first quick main 7 2"] * 2
    assert [(checkout / r).exists() for r in records(0, 7)] == [True, False]
    assert [path.name for path in (checkout / records(7)[0]).parent.glob("*")] == []  # nothing half-made beside it
    for path in (checkout / "notebooks").rglob("*.*"):
        os.utime(path)
    assert planned(snakemake(checkout, *plan, "-n")) == records(7)
    assert "REPORT --profile quick" in snakemake(checkout, "papers=01_first", "arms=main", "seeds=0").stdout
    assert not (checkout / "calls.txt").exists()
    notebook = checkout / "notebooks/01_first.ipynb"
    notebook.write_text(notebook.read_text().replace("x = 1", "x = 2"))
    assert planned(snakemake(checkout, *plan, "-n")) == records(0, 7)
