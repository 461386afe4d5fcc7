"""A repository of one tiny paper, for tests of `make equivalent`: a package, a notebook, a record, three commits."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from xai_utils.suite import provenance
from xai_utils.suite.equivalence import compared
from xai_utils.suite.equivalence.history import History

PAPER = "01_toy"
RUN = '''
"""Writes records, as the suite does."""
import json, os
from pathlib import Path
import numpy as np
from xai_utils.suite import provenance

ROOT = Path(__file__).parents[2]


class Run:
    def __init__(self, paper, names):
        self.paper, self.names, self.metrics, self.kept = paper, names, {}, {}

    def measure(self, name, value, low=None, high=None, n=None, unit=""):
        self.metrics[name] = {"value": value, "low": low, "high": high, "n": n, "unit": unit}

    def arrays(self, name, **values):
        self.kept[name] = values

    def record(self):
        place = [self.names[name] for name in ("profile", "arm", "seed")]
        folder = Path(os.environ["XAI_RESULTS"], place[0], self.paper, place[1], f"seed_{place[2]}")
        folder.mkdir(parents=True)
        for name, values in self.kept.items():
            np.savez(folder / f"{name}.npz", **values)
        record = {"paper": self.paper, "profile": place[0], "arm": place[1], "seed": place[2], "metrics": self.metrics}
        modules = provenance.module_hashes(ROOT, self.paper, place[0])
        record |= {"parameters": self.names, "provenance": {"modules": modules, "data": [], "commit": "unknown"}}
        (folder / "record.json").write_text(json.dumps(record))


def start(paper, parameters):
    wanted = ("profile", "arm", "seed", "size", "level")
    return Run(paper, {name: parameters[name] for name in wanted})
'''
SCORES = '''
"""Scores."""
import math
from random import Random

LEVEL = 0.5


def share(values, bound=LEVEL):
    """How many are above."""
    if not values:
        raise ValueError("there are no values")
    return sum(value > bound for value in values) / len(values)


def drawn(seed, n):
    """Two lists."""
    rng = Random(seed)
    first = [round(rng.random(), 1) for _ in range(n)]
    second = [round(rng.random(), 1) for _ in range(n)]
    return first, second


def spread(values):
    mean = sum(values) / len(values)
    total = sum((value - mean) ** 2 for value in values)
    return math.sqrt(total / len(values))


def thinned(values):
    if len(values) > 1000:
        values = values[::2]
    return values


def lowest(values):
    return min(values)


def highest(values):
    return max(values)


class Band:
    """Between two ends."""

    def __init__(self, values):
        self.low, self.high = min(values), max(values)

    def width(self):
        return self.high - self.low

    def never_used(self):
        return self.low / self.high
'''
CELLS = (
    ("parameters", 'profile, arm, seed = "quick", "main", 0\nsize = 20\nlevel = 0.5'),
    (
        "",
        'from xai_utils.metrics import scores\nfrom xai_utils.suite.run import start\nrun = start("01_toy", globals())',
    ),
    ("", "first, second = scores.drawn(seed, size)\nfirst = scores.thinned(first)"),
    ("", 'run.measure("P1.1.share", scores.share(first), n=len(first))\nprint(run.metrics)'),
    ("", 'run.measure("P1.2.spread", scores.spread(second), low=scores.lowest(first), high=scores.highest(first))'),
    ("", 'run.measure("P1.3.width", scores.Band(second).width())'),
    ("", 'run.arrays("values", first=first, second=[*second, float("nan")])\nrun.record()'),
)
FILES = {
    "xai_utils/__init__.py": "",
    "xai_utils/suite/__init__.py": "",
    "xai_utils/suite/run.py": RUN,
    "xai_utils/metrics/__init__.py": "",
    "xai_utils/metrics/scores.py": SCORES,
    f"notebooks/parameters/{PAPER}.yaml": "arms:\n  main: {level: 0.5}\n  other: {level: 0.7}\nsize: {type: int}\n",
    f"notebooks/profiles/quick/{PAPER}.yaml": "size: 10\n",
    f"notebooks/profiles/standard/{PAPER}.yaml": "size: 400\n",
    "notebooks/smoke.yaml": f"{PAPER}: {{size: 30}}\n",
    "results/reported.yaml": "papers: {}\n",
    ".gitignore": "__pycache__/\n",
}


def notebook(cells=CELLS) -> str:
    """A notebook's text."""
    made = [{"cell_type": "code", "metadata": {"tags": [tag] if tag else []}, "source": text} for tag, text in cells]
    return json.dumps({"cells": made, "nbformat": 4, "nbformat_minor": 5, "metadata": {}})


def git(root: Path, *words: str) -> str:
    """A git command in the toy's folder, whatever the machine's own settings are."""
    own = ["-c", "user.name=toy", "-c", "user.email=toy@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", str(root), *own, *words], capture_output=True, text=True, check=True).stdout


def commit(root: Path, files: dict[str, str | None], message: str = "change") -> None:
    """Write files (None: remove) and commit them."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).unlink() if text is None else (root / name).write_text(text)
    git(root, "add", "-A")
    git(root, "commit", "-qm", message, "--allow-empty")


def record(root: Path, cache: Path, arms=("main", "other")) -> None:
    """Run the toy at its standard profile and commit the records."""
    history = History(root)
    with tempfile.TemporaryDirectory() as folder:
        checkout = compared.Checkout(history, history.head, Path(folder) / "code", {})
        jobs = [compared.Job("standard", PAPER, arm, 0, True) for arm in arms]
        results = compared.Runs(cache, root / "data", 1).results({"made": (checkout, jobs)})
    for (_, job), result in results.items():
        place = root / "results" / job.profile / PAPER / job.arm / "seed_0"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(result.folder / "result.json", place)
        made = json.loads((place / "result.json").read_text())["record"]
        (place / "record.json").write_text(json.dumps(made))
        (place / "result.json").unlink()
    commit(root, {}, "records")


def make(root: Path, cache: Path) -> Path:
    """The repository with its records."""
    root.mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    own = Path(provenance.__file__).parent
    copied = {f"xai_utils/suite/{name}.py": (own / f"{name}.py").read_text() for name in ("provenance", "strict")}
    files = FILES | copied | {f"notebooks/{PAPER}.ipynb": notebook()}
    commit(root, files, "first")
    (root / "data").mkdir()
    record(root, cache)
    return root
