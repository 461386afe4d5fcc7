"""The parts of `make equivalent`: what counts as equal, what is marked when it runs, what a name leads to."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import toy
import yaml

from xai_utils.suite import provenance
from xai_utils.suite.equivalence import compared, replay
from xai_utils.suite.equivalence.definitions import Definition, Tree
from xai_utils.suite.equivalence.history import History
from xai_utils.suite.equivalence.normal_form import Writer


def result(folder, metrics, arrays=None, data=(), **parameters):
    """What a run with these metrics would have left."""
    folder.mkdir(parents=True)
    record = {"metrics": metrics, "parameters": parameters, "provenance": {"data": list(data), "modules": {}}}
    made = {"record": record, "loaded": [], "hits": {}, "seconds": 1.0}
    (folder / "result.json").write_text(json.dumps(made))
    np.savez(folder / "kept.npz", **(arrays or {}))
    return compared.Result(folder)


def metric(value, unit="", **ends):
    return {"value": value, "low": None, "high": None, "n": None, "unit": unit} | ends


def compare(tmp_path, old, new):
    return compared.compare(result(tmp_path / "old", **old), result(tmp_path / "new", **new))


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1.0, 1.0, True),
        (0.0, -0.0, False),
        (1.0, 1.0 + 2**-52, False),
        (None, None, True),
        (None, 0.0, False),
        (float("nan"), float("nan"), True),
        (float("nan"), None, False),
        (3, 4, False),
    ],
)
def test_numbers_are_equal_to_the_bit(one, other, equal):
    assert compared.same_number(one, other) is equal


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), ""),
        (np.array([1.0, np.nan]), np.array([1.0, -np.nan]), ""),
        (np.array([0.0]), np.array([-0.0]), "1 of 1 values differ"),
        (np.array([[1, 2], [3, 4]]), np.array([[1, 2], [4, 3]]), "2 of 4 values differ"),
        (np.array([1, 2], np.int32), np.array([1, 2]), "int32 (2,) → int64 (2,)"),
        (np.array(["a", "b"]), np.array(["a", "c"]), "1 of 2 values differ"),
        (np.zeros((0, 3)), np.zeros((0, 3)), ""),
    ],
)
def test_arrays_are_equal_to_the_bit(one, other, told):
    assert compared.unequal(one, other) == told


def test_what_is_added_is_welcome_and_what_is_gone_is_not(tmp_path):
    old = {"metrics": {"P1.1.a": metric(1.0), "P1.1.t": metric(3.0, "s")}, "arrays": {"x": np.ones(2)}, "steps": 3}
    more = {"P1.1.a": metric(1.0), "P1.1.b": metric(2.0), "P1.1.t": metric(4.0, "s")}
    new = {"metrics": more, "arrays": {"x": np.ones(2), "y": np.ones(1)}, "steps": 3, "more": 1}
    assert compare(tmp_path / "a", old, new) == ([], 1, 1, ["metric P1.1.t is a time and not compared"])
    assert compare(tmp_path / "b", new, old).differences == ["metric P1.1.b is gone", "array kept.npz: y is gone"]


def test_ends_counts_parameters_and_data_are_compared(tmp_path):
    source = {"name": "toy", "sha256": "a" * 64, "variant": "prepared"}
    old = {"metrics": {"P1.1.a": metric(1.0, low=0.5, n=4)}, "data": [source], "steps": 3}
    new = {"metrics": {"P1.1.a": metric(1.0, low=0.6, n=5)}, "data": [source | {"name": "other"}], "steps": 4}
    assert compare(tmp_path / "a", old, new).differences == [
        "metric P1.1.a: low 0.5 → 0.6, n 4 → 5",
        "parameter steps: 3 → 4",
        "data sets: toy prepared → other prepared",
    ]
    again = old | {"data": [source | {"sha256": "b" * 64}]}
    assert compare(tmp_path / "b", old, again) == ([], 1, 0, ["data set toy is recorded with another checksum"])


# what is marked ------------------------------------------------------------------------------------------------------

SOURCE = '''
"""A module."""
def f(x, names=()):
    """Text."""
    y = 1 if x > 2 else 2
    if x > 5:
        y = 3
    z = x and y or 4
    g = lambda v: v + 1
    return [n + y for n in names if n]
f(1, (0, 0))
f(3, (7,))
'''


def test_what_was_executed_is_marked(tmp_path, monkeypatch):
    for name in ("__hits__", "__seen__", "__went__"):
        monkeypatch.setattr(f"builtins.{name}", None, raising=False)
    marks = replay.Marks(tmp_path)
    exec(marks.compiled(ast.parse(SOURCE), "xai_utils/a.py"), {})
    lines, found = SOURCE.split("\n"), marks.executed()["xai_utils/a.py"]
    hit = {(kind, lines[line - 1][start:end]) for kind, line, start, last, end in found if line == last}
    assert {("e", "1"), ("e", "2"), ("t", "x > 2"), ("f", "x > 2"), ("f", "x > 5"), ("e", "n + y")} <= hit
    assert {("t", "n"), ("f", "n"), ("e", "y"), ("s", "z = x and y or 4")} <= hit
    assert not hit & {("t", "x > 5"), ("s", "y = 3"), ("e", "4"), ("e", "v + 1")}
    assert [kind for kind, *_ in found].count("d") == 1


def test_marks_change_nothing(tmp_path, monkeypatch):
    source = """
from __future__ import annotations
class A:
    "Text."
    def __init__(self, n): self.__n = n
    def up(self):
        global seen
        for i in range(self.__n):
            try:
                if i == 2: continue
                yield i if i % 2 else -i
            finally:
                seen = i
        else:
            yield "end"
def both(x):
    match x:
        case [a, b] if a > b: return "down"
        case [_, _]: return "up"
        case _: return None
    while True: pass
made = {k: v for k, v in zip("ab", (1, 2)) if v > 1}, list(A(4).up()), both([2, 1]), both([1, 2]), both(3)
walrus = [y for x in (1, 2, 3) if (y := x * 2) > 2 and y or 0]
"""
    for name in ("__hits__", "__seen__", "__went__"):
        monkeypatch.setattr(f"builtins.{name}", None, raising=False)
    plain, marked = {}, {}
    exec(compile(source, "a", "exec"), plain)
    exec(replay.Marks(tmp_path).compiled(ast.parse(source), "a"), marked)
    assert [marked[name] for name in ("made", "walrus", "seen")] == [plain[name] for name in ("made", "walrus", "seen")]
    assert marked["A"].__doc__ == "Text."
    assert plain["made"] == ({"b": 2}, [0, 1, 3, "end"], "down", "up", None)


# what a name leads to ------------------------------------------------------------------------------------------------

FILES = {
    "xai_utils/__init__.py": "",
    "xai_utils/__init__.pyi": "from . import a as a, b as b",
    "xai_utils/a/__init__.py": "import lazy_loader\n__getattr__ = lazy_loader.attach_stub(__name__, __file__)[0]",
    "xai_utils/a/__init__.pyi": "from .one import f as f\nfrom .two import g as renamed",
    "xai_utils/a/one.py": "from ..b import LIMIT\nfrom .two import g\ndef f(x): return g(x) + LIMIT",
    "xai_utils/a/two.py": "import numpy as np\ndef g(x): return np.mean(x)",
    "xai_utils/b.py": "LIMIT = 3\nTABLE = {'a': 1}\nTABLE['b'] = LIMIT\n",
    "xai_utils/old/__init__.py": "def __getattr__(name): ...",
    "xai_utils/old/c1c.py": "def c1c(x): return x",
}


@pytest.mark.parametrize(
    ("chain", "found"),
    [
        ("a.f", "xai_utils/a/one.py, f"),
        ("a.renamed", "xai_utils/a/two.py, g"),
        ("a.two.g", "xai_utils/a/two.py, g"),
        ("a.one.g", "xai_utils/a/two.py, g"),
        ("b.LIMIT", "xai_utils/b.py, LIMIT"),
        ("old.c1c", "xai_utils/old/c1c.py, c1c"),
    ],
)
def test_names_are_followed_through_imports_and_stubs(chain, found):
    first, *rest = chain.split(".")
    target = Tree(FILES).target("", [first, *rest], {first: ("xai_utils", first)})
    assert str(target.definition) == found


def test_what_lies_outside_stands_in_full():
    tree = Tree(FILES)
    target = tree.target("xai_utils/a/two.py", ["np", "mean"], {})
    assert (target.definition, target.text, target.rest) == (None, "numpy", ("mean",))
    assert tree.target("xai_utils/a/two.py", ["x"], {}) is None


def tokens(source, name="f", **files):
    tree = Tree(FILES | {"xai_utils/c.py": source, "xai_utils/d.py": "class E: ..."})
    definition = tree.modules["xai_utils/c.py"].definitions[name]
    return [
        (token.key, [ref.name for ref in token.refs])
        for token in Writer(tree, definition, lambda _: False, True).tokens()
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(x):\n    y = x\n    return y", "def f(x: int) -> int:\n    'Text.'\n    z: int = x\n    return z"),
        ("from xai_utils.b import LIMIT\ndef f(x): return x + LIMIT", "MOST = 3\ndef f(x):\n    return x + MOST"),
        ("def f(x):\n    raise ValueError('a')", "def f(x):\n    raise ValueError(f'b {x}') from None"),
        (
            "import numpy as np\ndef f(x): return np.mean(x)",
            "def f(x):\n    from numpy import mean\n    return mean(x)",
        ),
        ("def f(x):\n    print(x)\n    return x", "def f(x):\n    return x"),
        (
            "def f(x): return {'value': None, 'n': len(x), 'note': 'few'}",
            "from .d import E\ndef f(x): return E(None, len(x), note='too few')",
        ),
        (
            "from xai_utils import a\ndef f(x): return a.f(x)",
            "from xai_utils.a.one import f as h\ndef f(x): return h(x)",
        ),
    ],
    ids=["hints", "constant", "message", "import", "print", "undefined", "reference"],
)
def test_equal_normal_forms(one, other):
    assert tokens(one) == tokens(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(x): return x + 1", "def f(x): return x + 1.0"),
        ("def f(x, n=1): return x", "def f(x, n=2): return x"),
        ("def f(x, n): return x", "def f(x, m): return x"),
        (
            "def f(x):\n    a = x()\n    return a, x()",
            "def f(x):\n    a = x()\n    return x(), a",
        ),
        (
            "from numpy import mean\ndef f(x): return mean(x)",
            "from numpy import median as mean\ndef f(x): return mean(x)",
        ),
        ("from xai_utils.b import TABLE\ndef f(x): return TABLE", "TABLE = {'a': 1}\ndef f(x): return TABLE"),
        ("def f(x):\n    if x:\n        x = 1\n        x = 2", "def f(x):\n    if x:\n        x = 1\n    x = 2"),
        ("def f(x):\n    print(x.pop())\n    return x", "def f(x):\n    return x"),
        ("def f(x):\n    raise ValueError", "def f(x):\n    raise TypeError"),
    ],
    ids=["number", "default", "parameter", "order", "import", "constant", "depth", "popped", "exception"],
)
def test_different_normal_forms(one, other):
    assert tokens(one) != tokens(other)


@pytest.mark.parametrize(
    ("test", "chosen"),
    [
        ("name == 'folder'", True),
        ("name in ('a', 'b') and not kind != 'c'", True),
        ("isinstance(x, str) and x in TABLE", True),
        ("type(x) in (A, B) or callable(x)", True),
        ("given is None", True),
        ("set_anew is None", False),
        ("x is None", False),
        ("n == 3", False),
        ("n > 3", False),
        ("n", False),
        ("name in names", False),
        ("'a' in names", False),
        ("'a' in 'abc'", False),
        ("x.dtype == torch.float32", True),
        ("x.dtype in (torch.float16, torch.bfloat16) or not x.is_floating_point()", True),
        ("x.dtype.is_floating_point and x.device.type != 'cpu'", True),
        ("x.dtype != y.dtype and x.dim() > 2", True),
        ("model.training and not torch.is_grad_enabled()", True),
        ("hasattr(x, 'logits')", True),
        ("self.option is None", True),
        ("self.kept is None", False),
        ("self.other is None", False),
        ("x.dtype == f(x)", False),
        ("x.shape[0] == 1", False),
        ("len(x) == 1 or x.dim() == 2", False),
        ("x.dim() == len(y)", False),
        ("x.numel()", False),
        ("x.sum() > x.dim()", False),
        ("x.type", False),
        ("Path(x).exists() and not x.is_file()", True),
        ("x.masks is not None and x.groups is None", True),
        ("marked", True),
        ("not marked or given is None", True),
        ("twice", False),
        ("counted", False),
    ],
)
def test_a_choice_is_the_same_at_every_size(test, chosen):
    source = f"""
from .b import TABLE
class C:
    def __init__(self, option=None, kept=None):
        self.option, self.kept, self.other = option, kept, option
    def f(self, x, given=None, set_anew=None):
        set_anew = self.kept = x()
        names, marked = x.names, x.masks is not None
        twice, counted = x.masks is None, len(x) > 3
        twice = x.masks is not None
        return {test}
"""
    tree = Tree(FILES | {"xai_utils/c.py": source})
    made = tree.modules["xai_utils/c.py"].definitions["C.f"]
    writer = Writer(tree, made, lambda _: False)
    assert writer.is_choice(made.statements[0].body[-1].value) is chosen


def test_a_class_that_types_are_compared_with_is_not_one_that_is_used():
    source = """
from xai_utils.d import A, B, C, D
KNOWN = {A: 1}
def f(x):
    if isinstance(x, B) or type(x) in {C, D} or KNOWN.get(type(x)):
        return D()
"""
    tree = Tree(FILES | {"xai_utils/c.py": source, "xai_utils/d.py": "\n".join(f"class {n}: ..." for n in "ABCD")})
    written = Writer(tree, tree.modules["xai_utils/c.py"].definitions["f"], lambda _: False).tokens()
    assert [sorted(d.name for d in token.tested) for token in written] == [[], ["A", "B", "C", "D"], []]
    assert [[ref.name for ref in token.refs] for token in written] == [[], ["B", "C", "D", "A"], ["D"]]


# how runs are made short ---------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("paper", sorted(path.stem for path in (ROOT / "notebooks/parameters").glob("*.yaml")))
def test_smoke_sizes_are_numbers_that_the_paper_knows(paper):
    sizes = compared.smoke(ROOT)[paper]
    schema = yaml.safe_load((ROOT / f"notebooks/parameters/{paper}.yaml").read_text())
    assert sizes
    assert {schema[name]["type"] for name in sizes} == {"int"}
    assert all(type(value) is int and value >= schema[name]["minimum"] for name, value in sizes.items())


def test_small_sizes_go_over_the_profile_and_over_what_an_arm_sets(tmp_path):
    root = tmp_path / "toy"
    root.mkdir()
    toy.git(root, "init", "-q")
    toy.commit(
        root,
        {
            "notebooks/parameters/01_toy.yaml": "arms: {main: {loss: a, steps: 90}}\nsteps: {}\nsize: {}\nloss: {}\n",
            "notebooks/profiles/standard/01_toy.yaml": "size: 64\nsteps: 50\nloss: b\n",
            "results/standard/01_toy/main/seed_0/record.json": "{}",
            "results/reported.yaml": "papers: {}\n",
        },
    )
    known, history = {"01_toy": {"steps": 6, "size": 32, "gone": 1}}, History(root)
    checkout = compared.Checkout(history, history.head, tmp_path / "code", known)
    job = compared.Job("standard", "01_toy", "main")
    checkout.shrink([job])
    assert yaml.safe_load((tmp_path / "code/notebooks/parameters/01_toy.yaml").read_text())["arms"] == {
        "main": {"loss": "a", "steps": 6}
    }
    place = {"profile": "standard", "arm": "main", "seed": 0}
    assert checkout.parameters(job) == {"size": 32, "steps": 6, "loss": "b"} | place
    assert yaml.safe_load((tmp_path / "code/notebooks/profiles/standard/01_toy.yaml").read_text())["steps"] == 6
    assert sorted(path.name for path in (tmp_path / "code/results").iterdir()) == ["reported.yaml"]


def test_history_finds_the_newest_commit_of_a_map(tmp_path):
    root = tmp_path / "toy"
    root.mkdir()
    toy.git(root, "init", "-q", "-b", "main")
    for text in ("x = 1\n", "x = 1  # the same\n", "x = 2\n"):
        toy.commit(root, {"xai_utils/a.py": text})
    history = History(root)
    newest, middle, _ = history.commits()
    maps = [{"xai_utils/a.py": provenance.hash_python(text)} for text in ("x = 1", "x = 2", "x = 3")]
    assert history.last_current(maps, []) == [middle, newest, None]
    toy.git(root, "checkout", "-q", "-b", "side", middle)
    toy.commit(root, {"xai_utils/a.py": "x = 3\n"})
    aside = History(root).head
    toy.git(root, "checkout", "-q", "main")
    toy.git(root, "merge", "-q", "--no-edit", "-s", "ours", "side")
    merged = History(root)
    assert merged.last_current(maps, []) == [middle, merged.head, None]
    assert merged.last_current(maps, [aside]) == [middle, merged.head, aside]  # a record names it


LOOKS_BACK = """
records = report.load(folder)
of = lambda record: record.value
kinds = {"a": "b"}
shown = [of(r) for r in records if r.arm in kinds]
for value in shown:
    draw(value)
shown = 3
run.measure("P1.1.x", shown)
"""


def test_what_a_page_shows_of_committed_records_makes_no_number():
    def kept(code):
        page = Definition("notebooks/x.ipynb", "", "page", tuple(ast.parse(code).body))
        return [token.node.lineno for token in Writer(Tree({}), page, lambda _: False).tokens()]

    assert kept(LOOKS_BACK) == [8, 9]
    assert kept(LOOKS_BACK.replace("shown = 3", "pass")) == [2, 3, 4, 5, 6, 7, 9]  # a record is measured
    assert kept(LOOKS_BACK + "f(of(3))") == [3, 8, 9, 10]
    assert kept(LOOKS_BACK + "run.measure('P1.1.y', sum(value for value in mine))") == [8, 9, 10]  # its own `value`
    assert kept("x = 3\nrun.measure('P1.1.x', x)") == [1, 2]
