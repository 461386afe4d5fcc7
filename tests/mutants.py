"""Break the code on purpose, one line at a time, and see that a test turns red: python tests/mutants.py [--only NAME].

Each entry of tests/mutations.yaml is applied to a copy of the tree, and its `tests` (pytest arguments, nbval's too) are
run there. A mutant is killed by a test that fails, not by code that no longer runs. First the tests are run without a
mutation, once each: those of one file together.
"""

import argparse
import importlib.util
import multiprocessing
import os
import re
import shutil
import signal
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
LOADED = ("torch", "pandas", "matplotlib.pyplot", "scipy.stats", "sklearn.linear_model", "skimage.measure", "pytest")
ENVIRONMENT = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "MPLBACKEND": "Agg",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they take a second to import, every time
}
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch looks when it is loaded
WARM = multiprocessing.get_context("forkserver")  # a test's process does not wait for the libraries' import
WARM.set_forkserver_preload([*LOADED])
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
    """Whether a copy holds the file: of the runs under results/ only records and arrays, which notebooks read."""
    return not name.startswith("results/standard/") or name.endswith(("/record.json", ".npz"))


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
    report, said = copy / "mutants-report.xml", copy / "mutants-report.txt"
    report.unlink(missing_ok=True)
    process = WARM.Process(target=_pytest, args=(copy, tests, report, said))
    process.start()
    process.join(LONGEST)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        return "broken", f"no end after {LONGEST} s"
    text = said.read_text(encoding="utf-8", errors="replace") if said.exists() else "it did not start"
    if process.exitcode == 0:
        return "green", text
    failures = list(ElementTree.parse(report).iter("failure")) if report.exists() else []
    real = [failure for failure in failures if not NO_LONGER_RUNS.search(failure.get("message", ""))]
    return ("red" if process.exitcode == 1 and real else "broken"), text


def _pytest(copy, tests, report, said):
    """In a process of its own, forked from one in which the libraries are loaded: pytest in `copy`, on its code."""
    os.setsid()
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(copy)
    for name in ("XAI_ROOT", "XAI_RESULTS"):
        os.environ.pop(name, None)
    os.environ |= {**ENVIRONMENT, "PYTHONPATH": str(copy)}
    sys.path.insert(0, str(copy))
    found = importlib.util.find_spec("xai_utils").origin
    if not Path(found).is_relative_to(copy):
        print(f"the tests would import {found}, not the copy in {copy}", flush=True)
        os._exit(2)
    import pytest

    words = [
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        *["-p", "nbval.plugin"] * ("--nbval" in tests),
    ]
    code = pytest.main([*words, *tests])
    sys.stdout.flush()
    os._exit(int(code))


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
