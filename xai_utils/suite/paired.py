"""Paired differences over seeds: image by image, each image's mean over the seeds, tested once.

`Run.arrays` keeps what every method scored on every image; reported.yaml says, under `pooled`, which arrays make which
metric. So a p value over seeds is that of one test, never a mean of p values. results/README.md, "Over seeds".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from xai_utils.metrics import statistics
from xai_utils.metrics.statistics import Estimate
from xai_utils.suite.arrays import load_arrays
from xai_utils.suite.strict import Strict

if TYPE_CHECKING:
    from xai_utils.suite.record import Record

SEED = 0  # of the bootstrap and of the signs that a test draws


class Reversal(Strict):
    """Whether the order of methods turns round between two conditions, a file of kept arrays each, an array a method.

    The metric is `statistics.reversal` of the two.
    """

    arrays: list[str] = Field(min_length=2, max_length=2)
    methods: list[str] = Field(min_length=2)
    clusters: str
    metric: str


class Paired(Strict):
    """One comparison of a method with others in kept arrays, and the metrics that it makes.

    The array `<values>_<method>` of the file `<arrays>.npz` holds a method's score of each image, `clusters` what
    images share. difference: the smallest of the differences to the others; p: the largest p of paired permutation
    tests, Holm-adjusted.
    """

    arrays: str
    values: str
    ours: str
    others: list[str] = Field(min_length=1)
    clusters: str
    metrics: dict[Literal["difference", "p"], str] = Field(min_length=1)


def compared(entry: Paired | Reversal, records: Sequence[Record], results: Path) -> dict[str, Estimate]:
    """The metrics of an entry from the kept arrays of some seeds; {} if one of them lacks these arrays.

    Intervals draw seeds and whole clusters of images (`bootstrap_seeds_images`); of one seed, clusters alone. Fewer
    than two clusters: undefined.

    Args:
        entry: what is compared.
        records: of one arm.
        results: the tree that holds them.

    Raises:
        ValueError: an array that cannot be read; seeds that scored other images than the first.
    """
    if isinstance(entry, Reversal):
        files, wanted = entry.arrays, [entry.metric]
        names = [f"{file}.{method}" for file in files for method in entry.methods]
    else:
        files, wanted = [entry.arrays], list(entry.metrics.values())
        names = [f"{entry.arrays}.{entry.values}_{method}" for method in (entry.ours, *entry.others)]
    folders = [results / r.profile / r.paper / r.arm / f"seed_{r.seed}" for r in records]
    if not all((folder / f"{file}.npz").is_file() for folder in folders for file in files):
        return {}
    found, shared = [load_arrays(folder, files) for folder in folders], [f"{file}.{entry.clusters}" for file in files]
    if not all({*names, *shared} <= set(arrays) for arrays in found):
        return {}
    clusters = found[0][shared[0]]
    for record, arrays in zip(records, found):
        if other := [name for name in shared if not np.array_equal(arrays[name], clusters)]:
            raise ValueError(
                f"{record.paper}, {record.arm}, seed {record.seed}: {other[0]} is of other images than {shared[0]} of "
                f"seed {records[0].seed}; run one of them again"
            )
    if len(set(clusters.tolist())) < 2:
        return {name: Estimate(None, len(clusters), note="one group of images") for name in wanted}
    values = [np.stack([arrays[name] for arrays in found]) for name in names]
    interval = partial(_interval, clusters=clusters)
    if isinstance(entry, Reversal):
        half = len(entry.methods)
        one, other = (dict(zip(entry.methods, part)) for part in (values[:half], values[half:]))
        return {entry.metric: statistics.reversal(one, other, interval)}
    ours, others, made = values[0], values[1:], {}
    if "difference" in entry.metrics:
        apart = [interval(ours - other) for other in others]
        ends = {end: min(getattr(each, end) for each in apart) for end in ("value", "low", "high")}
        made[entry.metrics["difference"]] = Estimate(n=len(clusters), **ends)
    if "p" in entry.metrics:
        test = partial(statistics.permutation_test, paired=True, clusters=clusters, seed=SEED)
        tested = [test(ours.mean(0), other.mean(0)).p for other in others]
        made[entry.metrics["p"]] = Estimate(float(statistics.holm(tested).max()), len(clusters))
    return made


def _interval(differences: np.ndarray, clusters: np.ndarray) -> Estimate:
    """Mean of (seeds, images) differences, with its interval."""
    if len(differences) == 1:
        return statistics.bootstrap(differences[0], clusters=clusters, seed=SEED)
    return statistics.bootstrap_seeds_images(differences, clusters, seed=SEED)


def over_all_seeds(
    entries: Sequence[Paired | Reversal], records: Sequence[Record], results: Path
) -> dict[str, Estimate]:
    """What all entries make of two seeds or more; arguments as for `compared`."""
    made: dict[str, Estimate] = {}
    for entry in entries if len(records) > 1 else ():
        made |= compared(entry, records, results)
    return made
