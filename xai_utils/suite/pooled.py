"""Metrics of several runs together, from the arrays beside their records: seeds and patients are drawn anew at once.

A rule with `seeds` keeps runs for itself (`rules.Rule`); it is judged by the metrics that are computed here.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from xai_utils.suite import claims, paired
from xai_utils.suite.arrays import Arrays, load_arrays
from xai_utils.suite.over_seeds import OverSeeds, aggregate
from xai_utils.suite.record import Record

_FILES = ("judged", "groups")


def error_ratio(runs: Sequence[Arrays], n_resamples: int = 2000, seed: int = 0) -> dict[str, OverSeeds]:
    """Errors with the loss divided by errors without, over runs that each trained both networks (X4.4).

    An error is 1 − balanced accuracy: the mean over the classes of the share that is classified wrongly. Both are
    averaged over the runs before they are divided. The 95 % interval is the percentile interval of the ratio over
    runs and patients drawn with replacement, independently of each other (Owen's pigeonhole bootstrap, 2007): a patient
    who is judged in several runs is one patient.

    Args:
        runs: of each the arrays judged.labels, judged.before, judged.after (N,) and groups.groups (N,).
        n_resamples: draws.
        seed: of the draws.

    Returns:
        error_ratio; networks: how many runs there are; fewer_errors, more_errors: in how many of them the network with
        the loss has the smaller, or the larger, error.
    """
    known = sorted(set(np.concatenate([run["groups.groups"] for run in runs])))
    classes = sorted(set(np.concatenate([run["judged.labels"] for run in runs])))
    counts = np.zeros((3, len(runs), len(classes), len(known)))  # images, wrong without, wrong with the loss
    for number, run in enumerate(runs):
        labels, whose = run["judged.labels"], np.searchsorted(known, run["groups.groups"])
        wrong = [run[f"judged.{when}"] != labels for when in ("before", "after")]
        for kind, chosen in enumerate([np.ones(len(labels), bool), *wrong]):
            np.add.at(counts[kind, number], (np.searchsorted(classes, labels)[chosen], whose[chosen]), 1)

    def errors(patients: np.ndarray) -> np.ndarray:
        """Balanced errors (2, b, runs) by weights (b, patients)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            images, *wrong = np.einsum("ksci,bi->kbsc", counts, patients, optimize=True)
            return (np.stack(wrong) / images).mean(-1)

    of_patients, of_runs = np.random.default_rng(seed).spawn(2)
    patients = of_patients.multinomial(len(known), [1 / len(known)] * len(known), n_resamples)
    weights = of_runs.multinomial(len(runs), [1 / len(runs)] * len(runs), n_resamples)
    drawn = (errors(patients) * weights).sum(-1)
    without, with_loss = errors(np.ones((1, len(known))))[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = drawn[1] / drawn[0]
    ratios = ratios[np.isfinite(ratios)]
    if len(ratios) < 0.9 * n_resamples or not without.any():
        ratio = OverSeeds(None, len(runs), note="hardly any error without the loss")
    else:
        low, high = np.quantile(ratios, [0.025, 0.975]).tolist()
        ratio = OverSeeds(float(with_loss.mean() / without.mean()), len(runs), low, high)
    told = {
        "networks": len(runs),
        "fewer_errors": (with_loss < without).sum(),
        "more_errors": (with_loss > without).sum(),
    }
    return {"error_ratio": ratio} | {name: OverSeeds(float(n), len(runs), unit="networks") for name, n in told.items()}


POOLED: dict[str, Callable[[Sequence[Arrays]], dict[str, OverSeeds]]] = {"X4.4": error_ratio}  # claim → its metrics


def open_to_all(paper: claims.Paper, records: Sequence[Record]) -> list[Record]:
    """Records without those that a rule of the paper keeps for itself."""
    return [record for record in records if not paper.kept_for(record.arm, record.seed)]


def over_seeds(paper: claims.Paper, records: Sequence[Record], results: Path) -> dict[str, OverSeeds]:
    """The metrics of one arm over its seeds: means over the runs that everything looks at, and what is pooled.

    Args:
        paper: the records' own.
        records: of one arm.
        results: the tree that holds them.

    Raises:
        ValueError: arrays of a kept run are missing or cannot be read.
    """
    looked_at = open_to_all(paper, records)
    found = aggregate(looked_at)
    for name, made in paired.over_all_seeds(paper.pooled, looked_at, results).items():
        std = found[name].std if name in found else None
        found[name] = OverSeeds(made.value, len(looked_at), made.low, made.high, note=made.note, std=std)
    for claim in dict.fromkeys(paper.kept_for(record.arm, record.seed) for record in records):
        if claim:
            kept = [record for record in records if paper.kept_for(record.arm, record.seed) == claim]
            folders = [results / r.profile / r.paper / r.arm / f"seed_{r.seed}" for r in kept]
            pooled = POOLED[claim]([load_arrays(folder, _FILES) for folder in folders])
            found |= {f"{claim}.{name}": value for name, value in pooled.items()}
    return found
