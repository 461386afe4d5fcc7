"""results/equivalent.yaml: what it may hold, where it leads, and when a record counts as current."""

import datetime

import pytest
import yaml

from xai_utils.suite import chain, provenance

A, B, C = ({"xai_utils/a.py": letter * 16} for letter in "abc")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def entry(old, new):
    return {
        "from": chain.digest(old), "to": chain.digest(new), "from_commit": COMMIT, "to_commit": COMMIT,
        "date": datetime.date(2026, 11, 28), "runs": ["standard/01_toy/main/seed_0, smoke"], "metrics": 3, "arrays": 1,
    }  # fmt: skip


def content(*steps):
    maps = {chain.digest(known): dict(known) for step in steps for known in step}
    return {"maps": maps, "entries": [entry(*step) for step in steps]}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout with one module, whose hash is today's, and room for a chain."""
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    (tmp_path / "results").mkdir()
    (tmp_path / "xai_utils").mkdir()
    (tmp_path / "xai_utils/a.py").write_text("x = 1\n")
    return tmp_path


def write(root, made):
    (root / chain.FILE).write_text(yaml.safe_dump(made))
    return chain.read(root)


def test_the_chain_leads_from_map_to_map(root):
    today = {"xai_utils/a.py": provenance.hash_file(root / "xai_utils/a.py")}
    assert (chain.changed(today, root), chain.standing(today, root)) == ([], "as made")
    assert (chain.changed(A, root), chain.standing(A, root)) == (["xai_utils/a.py"], "stale")
    known = write(root, content((A, B), (B, today)))
    assert known.trail(A) == [A, B, today]
    assert [chain.standing(modules, root) for modules in (A, B, C)] == ["by equivalence", "by equivalence", "stale"]
    (root / "xai_utils/a.py").write_text("x = 2\n")
    assert chain.changed(A, root) == ["xai_utils/a.py"]
    assert chain.changed(A | {"xai_utils/b.py": "d" * 16}, root) == ["xai_utils/a.py", "xai_utils/b.py"]


def test_what_is_written_is_read_again(root):
    first = chain.Chain().extended(chain.Entry.model_validate(entry(A, B)), A, B)
    second = first.extended(chain.Entry.model_validate(entry(B, C)), B, C)
    chain.write(second, root)
    assert (root / chain.FILE).read_text().startswith("# Written by `make equivalent` alone")
    assert chain.read(root) == second
    assert chain.read(root).trail(A) == [A, B, C]


def test_a_change_that_is_taken_back_closes_no_circle():
    there = chain.Chain().extended(chain.Entry.model_validate(entry(A, B)), A, B)
    back = there.extended(chain.Entry.model_validate(entry(B, A)), B, A)
    assert [e.old for e in back.entries] == [chain.digest(B)]
    longer = there.extended(chain.Entry.model_validate(entry(B, C)), B, C)
    back = longer.extended(chain.Entry.model_validate(entry(C, A)), C, A)
    assert (back.trail(B), back.trail(A)) == ([B, C, A], [A])


def broken(change):
    made = content((A, B), (B, C))
    change(made)
    return made


def _twice(made):
    made["entries"].append(entry(A, C))


def _circle(made):
    made["entries"].append(entry(C, A))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda made: made["entries"][0].update(note="x"), "entries.0.note: Extra inputs are not permitted"),
        (lambda made: made.update(more=1), "more: Extra inputs are not permitted"),
        (lambda made: made["entries"][0].pop("runs"), "entries.0.runs: Field required"),
        (lambda made: made["entries"][0].update(metrics=0), "entries.0.metrics: Input should be greater than or equal"),
        (lambda made: made["entries"][0].update(from_commit="HEAD"), "entries.0.from_commit: String should match"),
        (lambda made: made["maps"].pop(chain.digest(B)), f"there is no map {chain.digest(B)}"),
        (lambda made: made["entries"].pop(), f"map {chain.digest(C)} belongs to no entry"),
        (lambda made: made["maps"][chain.digest(A)].update({"xai_utils/a.py": "d" * 16}), "it was edited by hand"),
        (_twice, f"two entries lead from map {chain.digest(A)}"),
        (_circle, "the entries lead in a circle through map"),
    ],
    ids=["field", "key", "missing", "none", "commit", "map", "unused", "edited", "twice", "circle"],
)
def test_a_chain_that_is_not_sound_is_refused(root, change, told):
    with pytest.raises(ValueError, match=r"equivalent.yaml is not valid") as error:
        write(root, broken(change))
    assert told in str(error.value)


def test_a_file_that_is_no_yaml_is_refused(root):
    (root / chain.FILE).write_text("maps: [")
    with pytest.raises(ValueError, match=r"equivalent.yaml is not valid YAML"):
        chain.read(root)
