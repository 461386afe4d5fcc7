"""Timings that can be trusted: everything in one process, in turn (A B A B …), medians of ratios, hardware named."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from xai_utils.suite import provenance

RESULTS = Path(__file__).parent / "results"


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def alternate(functions: Mapping[str, Callable[[], object]], rounds: int = 7) -> dict[str, list[float]]:
    """Seconds of every function in `rounds` rounds, in turn, after one unmeasured round."""
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return times


def ratio(times: Mapping[str, list[float]], name: str, unit: str) -> float:
    """Median over the rounds of the seconds of `name` over those of `unit`."""
    return statistics.median(a / b for a, b in zip(times[name], times[unit], strict=True))


def report(script: str, setting: str, rows: list[dict[str, object]]) -> None:
    """Print rows (what, measured, bar, aim) and write them, with the hardware, to results/<script>.json."""
    here = provenance.environment()
    kept = {name: here[name] for name in ("hardware", "threads", "platform", "python", "packages")}
    print(f"{setting}; {kept['hardware']['cpu']}, {torch.get_num_threads()} threads")
    for row in rows:
        print("  " + " · ".join(f"{name} {value}" for name, value in row.items()))
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"setting": setting, "rows": rows, **kept}, indent=1, ensure_ascii=False)
    (RESULTS / f"{Path(script).stem}.json").write_text(text + "\n", encoding="utf-8")
