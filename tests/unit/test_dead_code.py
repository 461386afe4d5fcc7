"""Every public function and class of the package is used outside the tests; what is not says why it is there."""

import ast
import json
import re
from pathlib import Path

import pytest

from xai_utils.data import FAMILIES, store

ROOT = Path(__file__).parents[2]
KEPT = {
    "crops_as_csv": "writes data/splits/road_cracks.csv, whose list was made once",
    "draw_crops": "chooses the crops of data/splits/road_cracks.csv, whose list was made once",
    "listing": "writes data/contents/<name>.csv of a prepared archive, made once for each set",
    "extra_repr": "PyTorch calls it to print a module",
    "is_leaf_module": "torch.fx calls it",
    "construct_mapping": "PyYAML calls it",
    "find_class": "pickle calls it",
    "same_result": "says that two runs with one seed are equal: what the records promise",
    "profile_table": "the table of records for `report` (current as made, or by equivalence), issue 19",
    "paired_interval": "paired statistics over images for `report`, issue 19",
    "bootstrap_seeds_images": "paired statistics over seeds and images for `report`, issue 19",
    "unpack": "prepared archives unpacked once, an open issue",
    "competent": "the notebooks ask it before they draw maps, with their next runs, issue 22",
    "warning": "what the notebooks then write over the maps, issue 22",
    "banner": "the notebooks draw it over the maps of a network that has not learned, with their next runs, issue 22",
}


def definitions(source):
    """Public functions, classes and methods of a module's source: name → line numbers of each, first and last."""
    found = {}
    for node in ast.parse(source).body:
        parts = [node, *(node.body if isinstance(node, ast.ClassDef) else [])]
        for part in parts:
            if isinstance(part, ast.FunctionDef | ast.ClassDef) and not part.name.startswith("_"):
                found.setdefault(part.name, []).append((part.lineno, part.end_lineno))
    return found


def used(source, own):
    """Names that a module's source uses, but for those of `own` (as `definitions` has them) within their own body."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
        if name and not any(first <= node.lineno <= last for first, last in own.get(name, ())):
            names.add(name)
    return names


def elsewhere():
    """Words of the code that calls the package: notebooks, benchmarks, Snakefile, make, and the pages' examples."""
    texts = [path.read_text(encoding="utf-8") for path in ROOT.glob("benchmarks/*.py")]
    texts += [(ROOT / name).read_text(encoding="utf-8") for name in ("Snakefile", "Makefile", "notebooks/run")]
    for path in ROOT.glob("notebooks/**/*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        texts += re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return set(re.findall(r"\w+", "\n".join(texts)))


def unused(modules, words):
    """Public names in `modules` (name → source) that neither they nor `words` use."""
    known = {module: definitions(source) for module, source in modules.items()}
    called = set(words).union(*(used(source, known[module]) for module, source in modules.items()))
    return {name for found in known.values() for name in found} - called


def test_what_the_package_offers_is_used_outside_the_tests():
    modules = {str(path): path.read_text(encoding="utf-8") for path in (ROOT / "xai_utils").rglob("*.py")}
    by_name = {f"load_{family}" for family in FAMILIES} | {f"build_{name}" for name in store.registry()}
    dead = unused(modules, elsewhere()) - by_name
    assert dead - KEPT.keys() == set(), "nothing calls them: take them out, with their tests"
    offered = {name for source in modules.values() for name in definitions(source)}
    assert KEPT.keys() - offered == set(), "they are gone: take them out of KEPT"


@pytest.mark.parametrize(
    ("source", "words", "expected"),
    [
        ("def f(): pass", "", {"f"}),
        ("def f(): pass", "f", set()),
        ("def f(): pass\ng = f()", "", set()),
        ("def f(): return f()", "", {"f"}),  # only itself
        ("class A:\n    def go(self): return self.go()\nA()", "", {"go"}),
        ("class A:\n    def go(self): pass\nA().go()", "", set()),
        ("from x import f\ndef g(): pass", "", {"g"}),
        ("def _f(): pass", "", set()),
    ],
)
def test_what_counts_as_used(source, words, expected):
    assert unused({"a.py": source}, words.split()) == expected
