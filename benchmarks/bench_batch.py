"""The batch: what planning and one job cost beside the run itself, and 5,000 records in plan and suite table."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import harness

from xai_utils.data.store import repository_root
from xai_utils.suite import batch, record, report

RUNNER = """#!/bin/sh
mkdir -p "$XAI_RESULTS/$2/$1/$3/seed_$4"
sed 's/"SEED"/'$4'/g' {template} > "$XAI_RESULTS/$2/$1/$3/seed_$4/record.json"
touch "$XAI_RESULTS/$2/$1/$3/seed_$4/notebook.ipynb"
"""
PAPER, ARM, JOBS, RECORDS = "02_moram_regression", "rectangles", 20, 5_000
root = repository_root()


def template(folder):
    """A committed record of ARM with another seed's place left open."""
    kept = json.loads((root / f"results/standard/{PAPER}/{ARM}/seed_0/record.json").read_text(encoding="utf-8"))
    kept["seed"] = kept["parameters"]["seed"] = "SEED"
    (folder / "template.json").write_text(json.dumps(kept), encoding="utf-8")
    return json.dumps(kept)


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    text = template(folder)
    for seed in range(RECORDS):
        place = folder / f"results/standard/{PAPER}/{ARM}/seed_{seed}"
        place.mkdir(parents=True)
        (place / "record.json").write_text(text.replace('"SEED"', str(seed)), encoding="utf-8")
    report.suite_table("standard", root / "results")  # loads what is loaded once
    table = harness.seconds(lambda: report.suite_table("standard", folder / "results"))
    record._load_record.cache_clear()

    checkout = folder / "checkout"  # the suite's files with a runner that only writes its record
    for part in (
        "notebooks",
        "xai_utils",
        "batch",
        "results/reported.yaml",
        "results/equivalent.yaml",
        "Snakefile",
        "data/registry.yaml",
    ):
        (checkout / part).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (root / part).is_dir() else shutil.copy
        copy(root / part, checkout / part)
    (checkout / "notebooks/run").write_text(RUNNER.format(template=folder / "template.json"), encoding="utf-8")
    asked = ["--config", "profile=standard", f"papers={PAPER}", f"arms={ARM}"]
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "batch/local", *asked]
    quiet = {"cwd": checkout, "check": True, "capture_output": True, "text": True}

    def batch_of(jobs):
        """Seconds of a whole batch whose runs take no time."""
        environment = os.environ | {"XAI_RESULTS": str(folder / f"out_{jobs}")}
        words = [*command, f"seeds=0..{jobs - 1}"]
        return harness.seconds(lambda: subprocess.run(words, env=environment, **quiet))

    one, many = batch_of(1), batch_of(JOBS)
    assert len(list((folder / f"out_{JOBS}").rglob("record.json"))) == JOBS
    os.environ["XAI_RESULTS"] = str(folder / "results")
    plan = harness.seconds(lambda: batch.plan("standard", PAPER, ARM, f"0..{RECORDS - 1}"))

harness.report(
    __file__,
    f"{PAPER}, arm {ARM}; batches of 1 and {JOBS} runs that only write a record",
    [
        {"what": "a batch of one job, beside the run", "seconds": round(one, 2), "bar": 5},
        {"what": "each further job", "seconds": round((many - one) / (JOBS - 1), 2), "bar": 5},
        {"what": f"planning {RECORDS:,} runs that have a record", "seconds": round(plan, 2), "bar": 5},
        {"what": f"suite table of {RECORDS:,} records", "seconds": round(table, 2), "bar": 5},
    ],
)
