"""Break the code on purpose, one line at a time, and see that a test turns red: python tests/mutants.py [--only NAME].

Each entry of tests/mutations.yaml is applied to a copy of the tree, and its `tests` (pytest arguments, nbval's too) are
run there. A mutant is killed by a test that fails, not by code that no longer runs. First the tests are run without a
mutation, once each: those of one file together.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
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


def needed(name):
    """Whether a copy holds the file: of the executed runs under results/ only the records, which notebooks read."""
    return not name.startswith("results/standard/") or name.endswith("/record.json")


def copy_of_tree(target, root=ROOT):
    """What git would commit and a test may read, with changes and new files as they stand on disk; without .git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    for name in sorted(set(listed.split("\0")) - {""}):
        if needed(name) and (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


def run_tests(copy, tests):
    """Outcome of pytest in `copy`, "green", "red" (a test failed) or "broken" (it did not run), and what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("XAI_ROOT", "XAI_RESULTS")}
    environment |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take a second to import, every time
    ask = [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('xai_utils').origin)"]
    origin = subprocess.run(ask, cwd=copy, env=environment, check=True, capture_output=True, text=True).stdout.strip()
    if not Path(origin).is_relative_to(copy):
        return "broken", f"the tests would import {origin}, not the copy in {copy}"
    report = copy / "mutants-report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += ["-p", "nbval.plugin"] * ("--nbval" in tests) + tests
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


def baselines(mutations):
    """What has to be green first: the distinct selections, tests that are named (file::test) gathered by their file."""
    named, others = {}, []
    for mutation in mutations:
        if all("::" in word for word in mutation["tests"]):
            for word in mutation["tests"]:
                named.setdefault(word.partition("::")[0], {})[word] = None
        elif mutation["tests"] not in others:
            others.append(mutation["tests"])
    return [{"name": "(unchanged)", "tests": tests} for tests in [*map(list, named.values()), *others]]


def main(arguments=None, path=LIST, root=ROOT):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", help="the mutations whose name begins so")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="copies tested at once (default 2)")
    options = parser.parse_args(arguments)
    chosen = [m for m in load(path) if m["name"].startswith(options.only or "")]
    if not chosen:
        parser.error(f"no mutation's name begins with {options.only!r}; they stand in {path.name}")
    wanted = {"green": "green without a mutation", "red": "killed"}
    failed = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for expected, group in (("green", baselines(chosen)), ("red", chosen)):
            for entry, (outcome, text) in zip(group, pool.map(lambda m: verdict(m, root), group)):
                words = {"green": "SURVIVED", "red": "RED WITHOUT A MUTATION", "broken": "DOES NOT RUN"}
                said = wanted[expected] if outcome == expected else words[outcome]
                tests = " ".join(entry["tests"])
                print(f"{said:26}{entry['name']:50} {textwrap.shorten(tests, 200, placeholder=' …')}", flush=True)
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
