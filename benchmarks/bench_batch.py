"""The batch: what planning and one job cost beside the run itself, and 1,000 records in the suite's table."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import harness

from xai_utils.data.store import repository_root
from xai_utils.suite import batch, report

RUNNER = """#!/bin/sh
mkdir -p "$XAI_RESULTS/$2/$1/$3/seed_$4"
sed 's/"SEED"/'$4'/g' {template} > "$XAI_RESULTS/$2/$1/$3/seed_$4/record.json"
touch "$XAI_RESULTS/$2/$1/$3/seed_$4/notebook.ipynb"
"""
PAPER, ARM, JOBS = "02_moram_regression", "rectangles", 20
root = repository_root()


def template(folder):
    """A committed record of ARM with another seed's place left open."""
    record = json.loads((root / f"results/standard/{PAPER}/{ARM}/seed_0/record.json").read_text(encoding="utf-8"))
    record["seed"] = record["parameters"]["seed"] = "SEED"
    (folder / "template.json").write_text(json.dumps(record), encoding="utf-8")
    return json.dumps(record)


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    text = template(folder)
    for seed in range(1000):
        place = folder / f"results/standard/{PAPER}/{ARM}/seed_{seed}"
        place.mkdir(parents=True)
        (place / "record.json").write_text(text.replace('"SEED"', str(seed)), encoding="utf-8")
    table = harness.seconds(lambda: report.suite_table("standard", folder / "results"))

    checkout = folder / "checkout"  # the suite's files with a runner that only writes its record
    for part in ("notebooks", "xai_utils", "batch", "results/reported.yaml", "Snakefile", "data/registry.yaml"):
        (checkout / part).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (root / part).is_dir() else shutil.copy
        copy(root / part, checkout / part)
    (checkout / "notebooks/run").write_text(RUNNER.format(template=folder / "template.json"), encoding="utf-8")
    asked = ["--config", "profile=standard", f"papers={PAPER}", f"arms={ARM}"]
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "batch/local", *asked]
    quiet = {"cwd": checkout, "check": True, "capture_output": True}

    def batch_of(jobs):
        """Seconds of a whole batch whose runs take no time."""
        import os

        environment = os.environ | {"XAI_RESULTS": str(folder / f"out_{jobs}")}
        words = [*command, f"seeds=0..{jobs - 1}"]
        return harness.seconds(lambda: subprocess.run(words, env=environment, **quiet))

    one, many = batch_of(1), batch_of(JOBS)
    assert len(list((folder / f"out_{JOBS}").rglob("record.json"))) == JOBS
    plan = harness.seconds(lambda: batch.plan("standard", PAPER, ARM, "0..999"))

harness.report(
    __file__,
    f"{PAPER}, arm {ARM}; batches of 1 and {JOBS} runs that only write a record",
    [
        {"what": "a batch of one job, beside the run", "seconds": round(one, 2), "bar": 5},
        {"what": "each further job", "seconds": round((many - one) / (JOBS - 1), 2), "bar": 5},
        {"what": "planning 1,000 runs", "seconds": round(plan, 2)},
        {"what": "suite table of 1,000 records", "seconds": round(table, 2), "bar": 5},
    ],
)
