"""A paper in a checkout of its own: schema, profile, notebook and rules, and runs of it."""

import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from xai_utils.metrics.statistics import Estimate
from xai_utils.suite import run as suite_run

REGISTRY = Path(__file__).parents[3] / "data/registry.yaml"
PAPER = "01_id_cvae_morphing"
SCHEMA = """
profile: {type: str, default: quick, choices: [quick, standard], help: "size of the run"}
seed: {type: int, default: 0, minimum: 0, maximum: 2147483647, help: "seed"}
arm: {type: str, default: main, choices: [main, improved], help: "which experiment"}
device: {type: str, default: auto, choices: [auto, cpu, cuda, mps], help: "where"}
learning_rate: {type: float, default: 0.01, above: 0.0, maximum: 1.0, help: "step"}
momentum: {type: float, default: 0.9, minimum: 0, below: 1, help: "momentum"}
patience: {type: int, default: null, minimum: 1, nullable: true, help: "epochs"}
widths: {type: int, default: [8, 16], list: true, minimum: 1, help: "channels"}
flip: {type: bool, default: true, help: "augment"}
"""
ARMS = """
arms:
  main: {contrast: 0.0}
  improved: {contrast: 10.0, shift: 1, widths: [4, 2], schedule: null, momentum: 0}
"""
REPORTED = """
papers:
  01_id_cvae_morphing:
    title: "t"
    citation: "c"
    competence:
      - {metric: P1.1.accuracy, images: test, at_least: 60, chance: V1.chance, says: accuracy, claims: [P1.2]}
    values:
      - {id: P1.1.accuracy, value: 98.13, unit: "%", place: "§4.2", n: 10000}
      - {id: P1.2.a, value: 1, place: "§4"}
      - {id: P1.2.b, value: 2.5, std: 0.5, place: "§4"}
      - {id: P1.2.c, value: 3, unit: s, place: "§4"}
      - {id: P1.2.d, value: 4, place: "§4"}
    claims:
      P1.1:
        kind: value
        statement: "The accuracy is high."
        place: "§4.2"
        rule:
          arms: [main, improved]
          comparable: {profile: [standard], flip: [true]}
          conditions: [{metric: P1.1.accuracy, test: at_least, bound: 98.13}]
      P1.2:
        kind: relation
        statement: "The right map is nearer."
        place: "§4.2"
        rule:
          arms: [main, improved]
          conditions: [{metric: P1.2.difference, test: above, bound: 0}]
      P1.3:
        kind: judgement
        statement: "It pleases the people."
        place: "§4.3"
        rule: {never: not tested, because: "this needs people to look at it"}
"""
GOOD = {
    "profile": "quick",
    "seed": 3,
    "arm": "main",
    "device": "cpu",
    "learning_rate": 0.001,
    "momentum": 0.9,
    "patience": None,
    "widths": [8, 16],
    "flip": True,
}  # as a run of the profile "quick" is given them


def notebook(source):
    cell = {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "execution_count": 1}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def checkout(root):
    """Write the paper's files below `root`."""
    for name, text in {
        f"notebooks/parameters/{PAPER}.yaml": SCHEMA,
        f"notebooks/profiles/quick/{PAPER}.yaml": "learning_rate: 0.001",
        f"notebooks/profiles/standard/{PAPER}.yaml": "learning_rate: 0.001",
        f"notebooks/{PAPER}.ipynb": notebook("x = 1"),
        "results/reported.yaml": REPORTED,
        "data/registry.yaml": REGISTRY.read_text(),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def rewrite(path, text):
    """Write `path` with a later time than it had, however fast that is: what is read is kept by path and time."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def with_arms(repository, text=ARMS):
    lines = [line for line in SCHEMA.splitlines() if not line.startswith("arm:")]
    rewrite(repository / f"notebooks/parameters/{PAPER}.yaml", text + "\n".join(lines))


def start(**changes):
    return suite_run.start(PAPER, GOOD | changes)


def picture(height=1.0):
    fig, ax = plt.subplots(figsize=(2, 2))
    ax.plot([0, height])
    return fig


def measured(run, accuracy=97.5, low=0.1):
    run.measure("P1.1.accuracy", accuracy, "%", n=1000)
    run.measure("P1.2.difference", Estimate(0.2, low=low, high=0.3))
    return run


def recorded(**changes):
    run = measured(start(**changes))
    run.uses({"name": "digits", "sha256": "ab", "variant": "embedded"})
    run.figure("fig1", picture())
    run.arrays("curve", x=np.arange(3.0), t=torch.ones(2, requires_grad=True), names=np.array(["a", "b"]))
    run.checkpoint("model").write_bytes(b"weights")
    return run, run.record()


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
