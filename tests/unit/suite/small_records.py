"""A checkout with one notebook and no records, and records to put into it, for the tests of what reads records."""

import json
import shutil
from pathlib import Path

from xai_utils.metrics import Estimate
from xai_utils.suite import claims
from xai_utils.suite import parameters as parameters_of

PAPER = "01_id_cvae_morphing"
GOOD = {
    "V1.validation_accuracy": (98.0, None, None, "%"),
    "P1.1.accuracy": (98.4, None, None, "%"),
    "P1.3.misclassified": (150.0, None, None, ""),
    "P1.3.accuracy_kept": (98.4, None, None, "%"),
    "P1.3.a.distance_difference": (0.3, 0.2, 0.4, ""),
    "P1.3.b.probability_difference_true": (0.3, 0.2, 0.4, ""),
    "P1.3.b.probability_difference_runner_up": (0.3, 0.2, 0.4, ""),
    "P1.3.b.realism_difference_blend": (0.3, 0.2, 0.4, ""),
    "P1.4.odd_share": (0.2, 0.15, 0.3, ""),
    "P1.4.odd_share_correct": (0.01, 0.0, 0.02, ""),
    "X1.1.accuracy": (99.1, None, None, "%"),
    "X1.2.odd_share_difference": (0.1, 0.05, 0.15, ""),
}
NAMES = {"accuracy": "P1.1.accuracy", "odd": "P1.4.odd_share", "learned": "V1.validation_accuracy"}


def small_checkout(folder, monkeypatch):
    """`folder` as a checkout with reported.yaml and one notebook, and no records."""
    monkeypatch.delenv("XAI_RESULTS", raising=False)
    monkeypatch.setenv("XAI_ROOT", str(folder))
    (folder / "results").mkdir()
    parameters = f"notebooks/parameters/{PAPER}.yaml"
    (folder / parameters).parent.mkdir(parents=True)
    shutil.copy(Path(__file__).parents[3] / parameters, folder / parameters)
    shutil.copy(Path(__file__).parents[3] / "results/reported.yaml", folder / "results")
    (folder / f"notebooks/{PAPER}.ipynb").write_text('{"cells": []}')
    for profile in ("quick", "standard", "paper"):
        (folder / "notebooks/profiles" / profile).mkdir(parents=True)
        (folder / "notebooks/profiles" / profile / f"{PAPER}.yaml").write_text(f"profile: {profile}\n")
    return folder


def write(root, seed=0, profile="standard", arm="main", dataset="mnist", results="results", modules=None, **change):
    """One valid record, its claims judged by the rules; `change` replaces metric values (of `NAMES`) or parameters."""
    parameters = {"profile": profile, "arm": arm, "seed": seed, "dataset": dataset, "epochs": change.pop("epochs", 2)}
    metrics = {name: dict(zip(("value", "low", "high", "unit"), entry)) for name, entry in GOOD.items()}
    for name, value in change.items():
        metrics[NAMES[name]]["value"] = value
    estimates = {name: Estimate(**entry) for name, entry in metrics.items()}
    verdicts = claims.evaluate(claims.load(), PAPER, estimates, parameters)
    hardware = {"cpu": "c", "cores": 2, "memory_gib": 8.0, "gpu": None}
    data = {
        "schema_version": 1, "paper": PAPER, "profile": profile, "arm": arm, "seed": seed, "parameters": parameters,
        "metrics": {name: {"n": None, "note": ""} | entry for name, entry in metrics.items()},
        "settings": parameters_of.schema(PAPER, Path(root)).arms.get(arm, {}),
        "claims": {name: verdict.model_dump(mode="json") for name, verdict in verdicts.items()},
        "figures": [], "arrays": [],
        "provenance": {
            "commit": "abcdef0123456789", "dirty": False, "started": "2026-11-21T00:00:00Z", "seconds": 90.0,
            "peak_memory_mib": 1.0, "python": "3.11", "packages": {}, "platform": "p", "hardware": hardware,
            "threads": 1, "device": "cpu", "data": [], "modules": modules or {},
        },
    }  # fmt: skip
    path = root / results / profile / PAPER / arm / f"seed_{seed}" / "record.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def row(table, claim):
    (found,) = table[table["claim"] == claim].to_dict("records")
    return found
