"""Break the code on purpose, one line at a time, and see that a test turns red: python tests/mutants.py [--only NAME].

Each entry of tests/mutations.yaml is applied to its own copy of the tree, and its `tests` (pytest arguments, nbval's
too) are run there. A mutant is killed by a test that fails, not by code that no longer runs.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("mutations.yaml")
LONGEST = 1800  # seconds for one selection of tests
NO_LONGER_RUNS = re.compile(  # as the report's message begins; within nbval's coloured one, as a line begins
    r"^(?:#x1B\[[\d;]*m)*(?:SyntaxError|IndentationError|ImportError|ModuleNotFoundError|NameError)\b", re.MULTILINE
)


def load(path=LIST):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def mutated(text, old, new):
    """`text` with its one occurrence of `old` replaced; ValueError if there is not exactly one."""
    if (count := text.count(old)) != 1:
        raise ValueError(f"{old!r} occurs {count} times; expected once")
    if old == new:
        raise ValueError(f"{old!r} is replaced by itself")
    return text.replace(old, new)


def copy_of_tree(target, root=ROOT):
    """What git would commit, with changes and new files as they stand on disk."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    for name in sorted(set(listed.split("\0")) - {""}):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


def run_tests(copy, tests):
    """Outcome of pytest in `copy`, "green", "red" (a test failed) or "broken" (it did not run), and what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("XAI_ROOT", "XAI_RESULTS")}
    environment |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    ask = [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('xai_utils').origin)"]
    origin = subprocess.run(ask, cwd=copy, env=environment, check=True, capture_output=True, text=True).stdout.strip()
    if not Path(origin).is_relative_to(copy):
        return "broken", f"the tests would import {origin}, not the copy in {copy}"
    report = copy / "mutants-report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return "broken", f"no end after {LONGEST} s"
    text = done.stdout + done.stderr
    if done.returncode == 0:
        return "green", text
    failures = list(ElementTree.parse(report).iter("failure")) if report.exists() else []
    real = [failure for failure in failures if not NO_LONGER_RUNS.search(failure.get("message", ""))]
    return ("red" if done.returncode == 1 and real else "broken"), text


def verdict(mutation, root=ROOT):
    """One row of the table: the outcome, and the tests' report where it is not "red"."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder).resolve()
        copy_of_tree(copy, root)
        file = copy / mutation.get("file", "")
        if "file" in mutation:
            changed = mutated(file.read_text(encoding="utf-8"), mutation["old"], mutation["new"])
            file.write_text(changed, encoding="utf-8")
        return run_tests(copy, mutation["tests"])


def main(arguments=None, path=LIST, root=ROOT):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", help="the mutations whose name begins so")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="copies tested at once (default 1)")
    options = parser.parse_args(arguments)
    chosen = [m for m in load(path) if m["name"].startswith(options.only or "")]
    if not chosen:
        parser.error(f"no mutation's name begins with {options.only!r}; they stand in {path.name}")
    baselines = {tuple(m["tests"]): {"name": "(unchanged)", "tests": m["tests"]} for m in chosen}
    wanted = {"green": "green without a mutation", "red": "killed"}
    failed = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for expected, group in (("green", list(baselines.values())), ("red", chosen)):
            for entry, (outcome, text) in zip(group, pool.map(lambda m: verdict(m, root), group)):
                words = {"green": "SURVIVED", "red": "RED WITHOUT A MUTATION", "broken": "DOES NOT RUN"}
                said = wanted[expected] if outcome == expected else words[outcome]
                print(f"{said:26}{entry['name']:50} {' '.join(entry['tests'])}", flush=True)
                if outcome != expected:
                    failed.append(entry["name"])
                    print("\n".join(text.splitlines()[-25:]), flush=True)
            if failed:
                break  # mutants of red tests say nothing
    killed = 0 if expected == "green" else len(chosen) - len(failed)
    print(f"{killed} of {len(chosen)} mutants killed" + (f"; not: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
