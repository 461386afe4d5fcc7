"""Killed at seeded moments and started again, everything ends as if it had not been: more kills than `make test` does.

A moment is a call of the file system (`interrupted`): a seed always means the same one. The batch is killed by the
clock.
"""

import json
import random
import shutil
import warnings

import pytest
import tiny_paper
import toy
import training_victim as victim
from conftest import UNIT  # noqa: F401  (puts the modules above on the path)
from data_server import DataServer, described, tree
from interrupted import every_moment, stopped
from test_publish import BESIDE, NEW, OLD, fresh, held, whole  # noqa: F401
from test_snakefile import checkout, killed_again_and_again  # noqa: F401
from test_training import same

import xai_utils.suite.run as suite_run
from xai_utils.data import origins, store
from xai_utils.suite import chain, publish
from xai_utils.suite.equivalence import command as equivalence
from xai_utils.suite.equivalence import replay
from xai_utils.suite.record import load_record, same_result

KILLS = 12  # of each kind, at moments that a seed chooses


def moments(count, seed, kills=KILLS):
    """Some moments of 1 … count, the last calls among them more often: there things are put in place."""
    rng = random.Random(seed)
    late = range(max(1, count - 12), count + 1)
    chosen = rng.sample(range(1, count + 1), min(kills - kills // 3, count)) + rng.choices(late, k=kills // 3)
    return sorted(chosen)


# training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_training(tmp_path, seed):
    expected = victim.train()
    count = every_moment(lambda: victim.train(tmp_path / "count/c.pt"))
    for number, moment in enumerate(moments(count, seed)):
        path = tmp_path / str(number) / "c.pt"
        assert stopped(lambda path=path: victim.train(path), moment, "kill")
        again = max(1, moment // 2)
        stopped(lambda path=path: victim.train(path), again, "kill")  # and once more, when it goes on
        with warnings.catch_warnings(action="error"):
            result = victim.train(path)
        same(result, expected)
        left = {file.name for file in path.parent.iterdir()} - {"c.pt.resumed", ".c.pt.lock"}
        assert left == {"c.pt"}


# recording --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_recording_at_every_bytecode(fresh, how):  # noqa: F811
    files, folder = ("suite/publish.py",), fresh()
    count = every_moment(lambda: publish.publish(folder, NEW), files)
    outcomes = []
    for moment in range(1, count + 1, 7):  # 7 and the bytecodes of no loop have a common divisor: all places come
        folder = fresh()
        stopped(lambda folder=folder: publish.publish(folder, NEW), moment, how, files)
        outcomes.append(whole(folder, OLD))
        shutil.rmtree(folder.parent)
    assert len(outcomes) >= 83
    assert {*outcomes} == {"old", "new"}


def whole_run():
    run = tiny_paper.measured(tiny_paper.start(), accuracy=50.0)
    run.arrays("curve", x=[1.0, 2.0])
    run.record()


@pytest.mark.parametrize("seed", range(2))
def test_a_whole_run_from_its_start_to_its_record(tmp_path, monkeypatch, seed):
    root = tmp_path / "repository"
    tiny_paper.checkout(root)
    monkeypatch.setenv("XAI_ROOT", str(root))
    for name in ("XAI_RESULTS", "XAI_PASSED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(suite_run, "_active", None)
    whole_run()
    folder = suite_run._active.folder
    expected = load_record(folder)
    for moment in moments(every_moment(whole_run), seed, 20):
        stopped(whole_run, moment, "kill")
        publish.settle_all(folder.parent)
        assert same_result(load_record(folder), expected) == []
        whole_run()
        assert same_result(load_record(folder), expected) == []
        assert sorted(path.name for path in folder.parent.iterdir()) == ["seed_3"]
        assert sorted(path.name for path in folder.iterdir()) == ["curve.npz", "record.json"]


# fetching ---------------------------------------------------------------------------------------------------------


def test_fetching(tmp_path, monkeypatch):
    bodies = {f"{name}.gz": bytes([number]) * 50_000 for number, name in enumerate(("one", "two", "three"))}
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    monkeypatch.delenv("XAI_DATA", raising=False)
    (tmp_path / "data").mkdir()
    with DataServer(bodies) as server:
        files = [described(f"set/{name}", body) for name, body in bodies.items()]
        entry = {"title": "t", "licence": "l", "source": "s", "citation": "c", "recipe": "direct", "files": files}
        entry["origins"] = [
            {"urls": [f"{server.url}/{name}"], "bytes": len(body), "hash": f"sha256:{file['sha256']}"}
            for (name, body), file in zip(bodies.items(), files, strict=True)
        ]
        (tmp_path / "data/registry.yaml").write_text(json.dumps({"small": entry}))

        def fetch():
            origins.fetch("small", say=lambda text: None)

        def nothing_there():
            shutil.rmtree(tmp_path / "data/set", ignore_errors=True)

        count = every_moment(fetch)
        for moment in moments(count, 0):
            nothing_there()
            stopped(fetch, moment, "kill")
            for name, body in bodies.items():  # what has its name is whole
                path = tmp_path / "data/set" / name
                assert not path.exists() or path.read_bytes() == body
            fetch()
            assert {n: b for n, b in tree(tmp_path / "data/set").items() if not n.startswith("tmp")} == bodies
    assert store.place(store.entry("small"))[0] == "origin"


# batch, make equivalent -------------------------------------------------------------------------------------------


def test_a_batch(checkout):  # noqa: F811
    killed_again_and_again(checkout, kills=20, seeds=range(10, 50), more_than=5)


def test_make_equivalent(tmp_path, monkeypatch):
    monkeypatch.setattr(replay, "HEAVY", ())
    made = toy.make(tmp_path / "made", tmp_path / "cache")
    scores = "xai_utils/metrics/scores.py"
    changed = toy.SCORES.replace("    rng = Random(seed)\n", "    source = seed\n    rng = Random(source)\n")
    assert changed != toy.SCORES
    toy.commit(made, {scores: changed})

    def compare(root, cache):
        monkeypatch.setenv("XAI_ROOT", str(root))
        return equivalence.equivalent(root, root / "data", cache, lambda text: None)

    whole = tmp_path / "whole"
    shutil.copytree(made, whole)
    assert compare(whole, tmp_path / "whole cache") == 0
    expected = chain.read(whole)
    assert len(expected.entries) == 1
    root, cache = tmp_path / "killed", tmp_path / "killed cache"
    shutil.copytree(made, root)
    count = every_moment(lambda: compare(root, cache))
    for moment in moments(count, 0, 9):
        shutil.rmtree(cache, ignore_errors=True)
        (root / chain.FILE).unlink(missing_ok=True)
        stopped(lambda: compare(root, cache), moment, "kill")
        before = chain.read(root)  # whole, or not there
        assert before.entries in ([], expected.entries)
        assert compare(root, cache) == 0
        assert chain.read(root) == expected
        assert not list((root / "results").glob("*.tmp")) or before.entries == []
