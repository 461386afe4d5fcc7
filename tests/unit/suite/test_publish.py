"""A record put in place: whatever stops it, and wherever, one whole record is there, the old one or the new one."""

import json
import os

import filelock
import pytest
from interrupted import HOWS, every_moment, stopped

from xai_utils.suite import publish

OLD = {"curve.npz": b"old curve", "fig1.png": b"old figure", "record.json": b"old record"}
NEW = {"fig1.png": b"new figure", "fig2.png": b"second", "record.json": b"new record"}
BESIDE = {"notebook.ipynb": b"{}"}


@pytest.fixture
def fresh(tmp_path):
    """Makes a results folder that holds the old record."""
    made = []

    def make(files=OLD):
        made.append(tmp_path / f"made_{len(made)}" / "seed_0")
        made[-1].mkdir(parents=True)
        for name, data in (files | BESIDE).items():
            (made[-1] / name).write_bytes(data)
        return made[-1]

    return make


def held(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def whole(folder, first):
    """Which record the folder holds after the next start; the folder beside it is clean."""
    publish.settle(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["seed_0"]
    found = held(folder)
    assert found in (first | BESIDE, NEW | BESIDE)
    return "new" if found == NEW | BESIDE else "old"


@pytest.mark.parametrize("first", [OLD, {}], ids=["over an older one", "the first one"])
@pytest.mark.parametrize("how", HOWS)
def test_stopped_before_any_call_of_the_file_system_one_whole_record_is_there(fresh, how, first):
    folder = fresh(first)
    count = every_moment(lambda: publish.publish(folder, NEW))
    outcomes = []
    for moment in range(1, count + 1):
        folder = fresh(first)
        assert stopped(lambda: publish.publish(folder, NEW), moment, how)  # noqa: B023
        if how == "kill" and not publish._leftovers(folder):
            assert held(folder) in (first | BESIDE, NEW | BESIDE)
        outcomes.append(whole(folder, first))
    assert count > 20
    assert outcomes == sorted(outcomes, reverse=True)  # old up to some moment, new from there on
    assert {*outcomes} == {"old", "new"}


@pytest.mark.parametrize("how", HOWS)
def test_stopped_while_it_finishes_what_was_noted_it_is_finished_the_next_time(fresh, how):
    def broken_off():
        folder = fresh()
        stage = folder.parent / ".seed_0.record-x"
        for kind, files in (("new", NEW), ("old", {"record.json": OLD["record.json"]})):
            (stage / kind).mkdir(parents=True)
            for name, data in files.items():
                (stage / kind / name).write_bytes(data)
        moves = [("old", name) for name in ("record.json", "curve.npz", "fig1.png")] + [("new", name) for name in NEW]
        (stage / publish.NOTE).write_text(json.dumps(moves))
        (folder / "record.json").unlink()
        return folder

    folder = broken_off()
    count = every_moment(lambda: publish.settle(folder))
    for moment in range(1, count + 1):
        folder = broken_off()
        stopped(lambda: publish.settle(folder), moment, how)  # noqa: B023
        assert whole(folder, OLD) == "new"


def test_a_second_interrupt_while_the_first_is_undone_loses_nothing(fresh, monkeypatch):
    replace = os.replace
    for first in range(1, 7):
        for second in range(1, first + 1):
            folder, calls = fresh(), []

            def interrupted(source, target, calls=calls, at=(first, first + second)):
                calls.append(1)
                if len(calls) in at:
                    raise KeyboardInterrupt
                replace(source, target)

            monkeypatch.setattr(os, "replace", interrupted)
            with pytest.raises(KeyboardInterrupt):
                publish.publish(folder, NEW)
            monkeypatch.undo()
            assert whole(folder, OLD) in ("old", "new")


def test_an_interrupt_that_comes_when_a_rename_is_done_is_undone(fresh, monkeypatch):
    replace = os.replace
    for stop in range(6):
        folder, calls = fresh(), []

        def interrupted(source, target, calls=calls, stop=stop):
            replace(source, target)
            calls.append(1)
            if len(calls) == stop + 1:
                raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            publish.publish(folder, NEW)
        monkeypatch.undo()
        assert held(folder) == OLD | BESIDE


def test_files_and_folders_are_brought_to_the_disk_before_the_first_move(fresh, monkeypatch):
    folder, said, fsync, replace = fresh(), [], os.fsync, os.replace

    def synced(handle):
        said.append(os.readlink(f"/proc/self/fd/{handle}").rpartition("/")[2])
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *ends: (said.append("move"), replace(*ends)))
    publish.publish(folder, NEW)
    before, after = said[: said.index("move")], said[len(said) - said[::-1].index("move") :]
    assert before[:6] == [*NEW, "new", "old", publish.NOTE]
    assert len(before) == 8  # the staging folder and the one that holds it
    assert after == ["seed_0"]


@pytest.mark.parametrize(
    "note",
    [
        '[["old", "../other"]]',
        '[["new", "/etc/passwd"]]',
        '[["away", "x.png"]]',
        '[["old"',
        "[1]",
        "{}",
        '[["new", ""]]',
    ],
)
def test_a_note_that_is_none_moves_nothing(fresh, note):
    folder = fresh()
    (folder.parent / "other").write_text("a neighbour")
    stage = folder.parent / ".seed_0.record-x"
    (stage / "old").mkdir(parents=True)
    (stage / publish.NOTE).write_text(note)
    publish.settle(folder)
    assert held(folder) == OLD | BESIDE
    assert sorted(path.name for path in folder.parent.iterdir()) == ["other", "seed_0"]


def test_what_no_run_holds_is_settled_by_who_comes_by_and_what_one_holds_is_left_alone(fresh):
    def killed(folder, last):
        assert stopped(lambda: publish.publish(folder, NEW), count - last, "kill")
        return folder

    late, early, unbegun = fresh(), fresh(), fresh()
    count = every_moment(lambda: publish.publish(late, NEW))
    for name, data in OLD.items():
        (late / name).write_bytes(data)
    (late / "fig2.png").unlink()
    killed(late, 9)
    for place, name in ((early, "seed_1"), (unbegun, "seed_10")):
        place.rename(late.parent / name)
    early, unbegun = killed(late.parent / "seed_1", 11), killed(late.parent / "seed_10", count - 3)
    (late.parent / "seed_2").mkdir()
    with filelock.FileLock(late / ".lock"):
        assert publish.settle_all(late.parent) == [late]
    assert publish.settle_all(late.parent) == []
    assert sorted(path.name for path in late.parent.iterdir()) == ["seed_0", "seed_1", "seed_10", "seed_2"]
    (late / ".lock").unlink(missing_ok=True)
    assert (held(late), held(early), held(unbegun)) == (NEW | BESIDE, NEW | BESIDE, OLD | BESIDE)
