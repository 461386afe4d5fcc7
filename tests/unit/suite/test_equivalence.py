"""`make equivalent` on a toy repository: what moves no number is carried over, and whatever could is refused."""

import shutil

import pytest
import toy

from xai_utils.suite import chain
from xai_utils.suite.equivalence import command as equivalence
from xai_utils.suite.equivalence import replay
from xai_utils.suite.equivalence.history import NotPossible

SCORES = "xai_utils/metrics/scores.py"
NOTEBOOK = f"notebooks/{toy.PAPER}.ipynb"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The toy with its records, and the runs done before."""
    folder = tmp_path_factory.mktemp("toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "HEAVY", ())
        return toy.make(folder / "made", folder / "cache"), folder / "cache"


@pytest.fixture
def repository(made, tmp_path, monkeypatch):
    """A copy of the toy to change, as the checkout of this process."""
    monkeypatch.setattr(replay, "HEAVY", ())
    monkeypatch.setenv("XAI_ROOT", str(tmp_path / "toy"))
    shutil.copytree(made[0], tmp_path / "toy")
    return tmp_path / "toy"


@pytest.fixture
def tried(repository, made):
    """Commit a change and compare: how many maps were refused, and what was said."""

    def do(files, **more):
        toy.commit(repository, files)
        said: list[str] = []
        refused = equivalence.equivalent(repository, repository / "data", made[1], said.append, **more)
        return refused, "\n".join(said)

    return do


def stale(repository):
    """The toy's records that are not current."""
    records = equivalence.committed(equivalence.History(repository))
    assert len(records) == 2
    return [r["arm"] for r in records if chain.changed(r["provenance"]["modules"], repository)]


def edited(old, new, text=toy.SCORES):
    assert text.count(old) == 1
    return text.replace(old, new)


def cells(**changes):
    """The notebook with texts replaced in its cells."""
    text = toy.notebook()
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return text


# what moves no number ----------------------------------------------------------------------------------------------

RENAMED = {
    SCORES: toy.SCORES.replace("def spread", "def deviation"),
    NOTEBOOK: cells(name=("scores.spread", "scores.deviation")),
}
MOVED = {
    SCORES: None,
    "xai_utils/metrics/moved/__init__.py": "",
    "xai_utils/metrics/moved/values.py": toy.SCORES,
    NOTEBOOK: cells(
        place=("from xai_utils.metrics import scores", "from xai_utils.metrics.moved import values as scores")
    ),
}
BAND = toy.SCORES[toy.SCORES.index("class Band") :]
SPLIT_MODULE = {
    SCORES: toy.SCORES.removesuffix(BAND),
    "xai_utils/metrics/band.py": f'"""Bands."""\n\n\n{BAND}',
    NOTEBOOK: cells(
        use=("scores.Band", "band.Band"),
        place=("from xai_utils.metrics import scores", "from xai_utils.metrics import band, scores"),
    ),
}
SPLIT_FUNCTION = {
    SCORES: edited(
        "    total = sum((value - mean) ** 2 for value in values)\n    return math.sqrt(total / len(values))\n",
        "    return math.sqrt(_total(values, mean) / len(values))\n\n\ndef _total(values, mean):\n"
        "    total = sum((value - mean) ** 2 for value in values)\n    return total\n",
    )
}
MESSAGE = {SCORES: edited("there are no values", "values is empty: give at least one")}
HINTS = {SCORES: edited("def thinned(values):", 'def thinned(values: list[float]) -> list[float]:\n    """Fewer."""')}
LOCALS = {SCORES: edited("values[::2]\n    return values", "values[::2]\n    return values").replace("mean", "average")}
NAMED = {SCORES: edited("> 1000:", "> MOST:").replace("LEVEL = 0.5", "LEVEL = 0.5\nMOST = 1000")}
UNUSED = {SCORES: edited("self.low / self.high", "self.high / self.low")}
ERROR = {
    SCORES: edited(
        "    if not values:",
        "    if None in values:\n        text = 'None'\n        raise ValueError(text)\n    if not values:",
    )
}
EXECUTED = {SCORES: edited("    return self.high - self.low", "    return -(self.low - self.high)")}
SHOWN = {NOTEBOOK: cells(drawn=("print(run.metrics)", "print(sorted(run.metrics))"))}


@pytest.mark.parametrize(
    "files",
    [RENAMED, MOVED, SPLIT_MODULE, SPLIT_FUNCTION, MESSAGE, HINTS, LOCALS, NAMED, UNUSED, ERROR, EXECUTED, SHOWN],
    ids=[
        "renamed",
        "moved",
        "module",
        "function",
        "message",
        "hints",
        "locals",
        "named",
        "unused",
        "error",
        "executed",
        "shown",
    ],
)
def test_a_change_that_moves_no_number_is_carried_over(repository, tried, files):
    refused, said = tried(files)
    assert (refused, stale(repository)) == (0, []), said
    (entry,) = chain.read(repository).entries
    assert (entry.metrics, entry.arrays) == (9, 6)  # main and other on their own data, main at quick
    assert entry.runs == [
        "standard/01_toy/main/seed_0, smoke",
        "standard/01_toy/other/seed_0, smoke",
        "quick/01_toy/main/seed_0",
    ]
    assert entry.new_commit == toy.git(repository, "rev-parse", "HEAD").strip()


def test_a_second_change_makes_the_chain_longer_and_one_that_is_taken_back_shorter(repository, tried):
    assert tried(MESSAGE)[0] == 0
    first = chain.read(repository)
    toy.commit(repository, {})
    assert tried(NAMED)[0] == 0
    assert (len(chain.read(repository).entries), stale(repository)) == (2, [])
    refused, said = tried(MESSAGE)
    assert (refused, stale(repository)) == (0, []), said
    assert chain.read(repository).entries[0] == first.entries[0]


def test_nothing_to_do_is_said(repository, tried):
    assert tried({}) == (0, "2 records, 0 of them not current, 0 maps")


# what could move one -----------------------------------------------------------------------------------------------

TIE = edited("value > bound", "value >= bound")
SWAPPED = edited(
    "    first = [round(rng.random(), 1) for _ in range(n)]\n    second = [round(rng.random(), 1) for _ in range(n)]\n",
    "    second = [round(rng.random(), 1) for _ in range(n)]\n    first = [round(rng.random(), 1) for _ in range(n)]\n",
)
ELSEWHERE = edited("def lowest(values):\n    return min(values)", "def lowest(values):\n    return highest(values)")
MEASURED = "metric P1.1.share: value"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({SCORES: edited("LEVEL = 0.5", "LEVEL = 0.7")}, MEASURED),
        ({SCORES: edited("value - mean", "value + mean")}, "metric P1.2.spread: value"),
        ({SCORES: SWAPPED}, "array values.npz: second: "),
        ({SCORES: TIE}, MEASURED),
        ({SCORES: ELSEWHERE}, "metric P1.2.spread: low"),
        (
            {NOTEBOOK: cells(seed=("scores.drawn(seed, size)", "scores.drawn(seed + 1, size)"))},
            "array values.npz: first: ",
        ),
        (
            {NOTEBOOK: cells(gone=('run.measure(\\"P1.3.width\\", scores.Band(second).width())', ""))},
            "metric P1.3.width is gone",
        ),
    ],
    ids=["constant", "sign", "order", "tie", "import", "notebook", "gone"],
)
def test_a_change_that_moves_a_number_is_refused(repository, tried, files, told):
    refused, said = tried(files)
    assert (refused, stale(repository)) == (1, ["main", "other"])
    assert told in said
    assert not (repository / chain.FILE).exists()


NEVER = "is changed, and no compared run executed it on real data"
WAY = "decides anew what is done, and was never true on real data in a compared run"
PART = "is changed, and this part of it was not evaluated on real data by any compared run"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "values[::2]",
            "values[::3]",
            ["(thinned), old: values = values[::2]", "(thinned), new: values = values[::3]", NEVER],
        ),
        ("> 1000:", "> 900:", ["(thinned), new: if len(values) > 900:", WAY]),
        ("return self.high - self.low", "return self.high - self.low if self.low < 9 else 0", ["Band.width", PART]),
        ("return min(values)", "return min(values) if values else highest(values) / 2", ["(lowest)", PART]),
        ("        values = values[::2]\n", "        pass\n", ["(thinned), old: values = values[::2]", NEVER]),
        (
            "    mean = sum",
            "    if len(values) > 99:\n        values = values[:99]\n    mean = sum",
            ["(spread)", NEVER, WAY],
        ),
    ],
    ids=["branch", "bound", "conditional", "operand", "removed", "added"],
)
def test_a_change_that_no_run_has_shown_is_refused_by_name(repository, tried, old, new, told):
    refused, said = tried({SCORES: edited(old, new)})
    assert (refused, stale(repository)) == (1, ["main", "other"])
    assert [text for text in told if text not in said] == [], said
    assert "what would show it: a run that does (sizes: notebooks/smoke.yaml), whole runs (STANDARD=1)" in said
    assert not (repository / chain.FILE).exists()


def test_whole_runs_show_what_short_ones_do_not(repository, tried):
    files = {SCORES: edited("> 1000:", "> 900:")}
    refused, said = tried(files, whole=True)
    assert (refused, stale(repository)) == (0, []), said
    assert "standard/01_toy/main/seed_0, whole" in chain.read(repository).entries[0].runs


def test_an_arm_that_an_unrelated_change_does_not_reach_is_not_asked_for(repository, tried):
    choice = '    if name == "folder":\n        return highest(values)\n'
    refused, said = tried({SCORES: edited("def lowest(values):\n", f'def lowest(values, name="toy"):\n{choice}')})
    assert (refused, stale(repository)) == (0, []), said


@pytest.mark.parametrize(
    ("guard", "allowed"),
    [("hasattr(values, 'dtype')", True), ("not isinstance(values, list)", True), ("len(values) == 0", False)],
)
def test_a_new_way_for_another_kind_of_input_needs_no_run_one_for_another_size_does(repository, tried, guard, allowed):
    new = f"def lowest(values):\n    if {guard}:\n        return _anew(values)\n"
    more = "\n\ndef _anew(values):\n    return sorted(values)[0]\n"
    refused, said = tried({SCORES: edited("def lowest(values):\n", new) + more})
    assert (refused, stale(repository)) == ((0, []) if allowed else (1, ["main", "other"])), said


def test_a_changed_profile_is_refused_and_a_changed_layout_is_not(repository, tried):
    path = f"notebooks/profiles/standard/{toy.PAPER}.yaml"
    refused, said = tried({path: "size: 500\n"})
    assert refused == 1
    assert f"{path} has another content" in said
    assert tried({path: "# many\nsize:   400\n"}) == (0, "2 records, 0 of them not current, 0 maps")


def test_precedence_of_parameters_is_compared(repository, tried):
    other = toy.RUN.replace("for name in wanted}", 'for name in wanted} | {"level": 0.7}')
    more = {"xai_utils/suite/run.py": other, SCORES: MESSAGE[SCORES]}
    refused, said = tried(more)
    assert refused == 1
    assert "parameter level: 0.5 → 0.7" in said


# what cannot be compared -------------------------------------------------------------------------------------------


def test_a_dirty_tree_is_not_compared(repository, tried):
    (repository / SCORES).write_text(MESSAGE[SCORES])
    with pytest.raises(NotPossible, match=r"not committed: xai_utils/metrics/scores.py"):
        equivalence.equivalent(repository, repository / "data", repository / "cache")
    (repository / SCORES).write_text(toy.SCORES)
    (repository / "xai_utils/metrics/more.py").write_text("")
    with pytest.raises(NotPossible, match=r"not committed: xai_utils/metrics/more.py"):
        equivalence.equivalent(repository, repository / "data", repository / "cache")
    assert not (repository / chain.FILE).exists()


def test_no_history_no_data_no_commit_that_holds_the_map(repository, tried):
    toy.commit(repository, MESSAGE)
    with pytest.raises(NotPossible, match=r"no data: .*none is no folder\. Set XAI_DATA"):
        equivalence.equivalent(repository, repository / "none", repository / "cache")
    shutil.rmtree(repository / ".git")
    with pytest.raises(NotPossible, match="no git history"):
        equivalence.equivalent(repository, repository / "data", repository / "cache")
    toy.git(repository, "init", "-q")
    refused, said = tried({})
    assert refused == 1
    assert "no commit of the history holds these files as they were" in said
    assert not (repository / chain.FILE).exists()


def test_data_sets_of_the_records_that_are_not_there(repository, tried):
    (repository / "data/registry.yaml").write_text("mini: {files: [{path: mini.npz}]}\n")
    for path in repository.glob("results/standard/*/*/*/record.json"):
        path.write_text(path.read_text().replace('"data": []', '"data": [{"name": "mini", "sha256": "a"}]'))
    with pytest.raises(NotPossible, match=r"no data: mini of the records neither in .*data nor in data/"):
        tried(MESSAGE)


def test_code_that_does_not_run_is_said(repository, tried):
    refused, said = tried({SCORES: edited("import math", "import math\nimport no_such_package")})
    assert refused == 1
    assert "the new code did not run: ModuleNotFoundError: No module named 'no_such_package'" in said


# CI ----------------------------------------------------------------------------------------------------------------


def test_check_and_repeat(repository, tried, tmp_path):
    said: list[str] = []
    assert equivalence.check(repository, said.append) == 0
    assert equivalence.repeat(repository, repository / "data", tmp_path / "cache", said.append) == 0
    assert said == ["results/equivalent.yaml: 0 entries, 0 maps, sound", "nothing to repeat: there is no entry"]
    tried(EXECUTED)
    toy.commit(repository, {}, "entry")
    said.clear()
    assert equivalence.check(repository, said.append) == 0
    assert equivalence.repeat(repository, repository / "data", tmp_path / "cache", said.append) == 0
    assert said[0] == "results/equivalent.yaml: 1 entries, 2 maps, sound"
    assert "3 metrics and 2 arrays are equal" in said[-1]
    toy.commit(repository, {SCORES: toy.SCORES.replace("min", "max")})
    said.clear()
    assert equivalence.check(repository, said.append) == 1
    assert "2 records are neither current nor led to today's files" in said[0]


def test_check_names_commits_that_are_no_ancestors(repository, tried):
    tried(EXECUTED)
    toy.commit(repository, {}, "entry")
    text = (repository / chain.FILE).read_text()
    here = chain.read(repository).entries[0].new_commit
    toy.commit(repository, {chain.FILE: text.replace(here, "f" * 40)})
    said: list[str] = []
    assert equivalence.check(repository, said.append) == 1
    assert said[0] == f"results/equivalent.yaml names commits that are no ancestors of HEAD: {'f' * 40}"
