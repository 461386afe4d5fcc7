"""The data store: roots, registry, look-up, checksums."""

import hashlib
import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from data_server import described, tree, write_registry
from prepared import zipped

import xai_utils.data
from xai_utils.data import contents, origins, store

CHECKOUT = Path(__file__).resolve().parents[3]
FILES = {"MINI/raw/one.gz": b"first file", "MINI/raw/two.gz": b"second file"}
ZIP = zipped({"index.csv": b"id", "images/a.jpg": b"image"})


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository of its own, with `mini` and `later` in its registry and no network to go to."""
    monkeypatch.setenv("XAI_ROOT", str(tmp_path / "repo"))
    monkeypatch.delenv("XAI_DATA", raising=False)
    sets = {"mini": ("direct", ["https://example.org/mini"], FILES), "later": ("build", [], {"later.zip": ZIP})}
    write_registry(tmp_path / "repo", {**sets, "inside": ("embedded", [], {})})

    def refuse(*arguments, **options):
        raise AssertionError("a look-up must never open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path / "repo"


def put(folder, files=FILES):
    for path, body in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(body)
    return folder


# --- roots


def test_root_is_the_variable_or_the_nearest_parent_with_reported_yaml(tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    assert store.repository_root() == tmp_path.resolve()
    monkeypatch.delenv("XAI_ROOT")
    checkout = tmp_path / "checkout"
    module = put(checkout, {"results/reported.yaml": b"", "xai_utils/data/store.py": b""}) / "xai_utils/data/store.py"
    monkeypatch.setattr(store, "__file__", str(module))
    assert store.repository_root() == checkout.resolve()
    put(checkout, {"xai_utils/results/reported.yaml": b""})
    assert store.repository_root() == (checkout / "xai_utils").resolve()


def test_root_outside_a_checkout_and_a_wrong_variable_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"XAI_ROOT is '.*gone', which is not a folder"):
        store.repository_root()
    monkeypatch.delenv("XAI_ROOT")
    monkeypatch.setattr(store, "__file__", str(tmp_path / "site-packages/xai_utils/data/store.py"))
    with pytest.raises(FileNotFoundError, match=r"from a checkout.*pip install -e.*XAI_ROOT"):
        store.repository_root()


def test_relative_paths_count_from_the_repository_root_in_every_folder(root, tmp_path, monkeypatch):
    put(tmp_path / "prepared")
    monkeypatch.setenv("XAI_DATA", "../prepared")
    for folder in (tmp_path, root / "data"):
        monkeypatch.chdir(folder)
        assert store.prepared_root() == (tmp_path / "prepared").resolve()
    assert store.resolve(tmp_path) == tmp_path.resolve()


def test_xai_data_that_is_no_folder_is_an_error_not_a_fallback(root, monkeypatch):
    put(root / "data")
    monkeypatch.setenv("XAI_DATA", "nowhere")
    with pytest.raises(FileNotFoundError, match=r"XAI_DATA is 'nowhere', but .*nowhere is not a folder"):
        store.locate("mini")


def test_root_of_this_checkout(monkeypatch):
    monkeypatch.delenv("XAI_ROOT", raising=False)
    assert store.repository_root() == CHECKOUT


# --- look-up and checksums


def slow_set_checksum(files):
    text = ""
    for path in sorted(files):
        text += path + " " + hashlib.sha256(files[path]).hexdigest() + "\n"
    return hashlib.sha256(text.encode()).hexdigest()


def test_prepared_comes_before_data_and_provenance_says_which(root, tmp_path, monkeypatch):
    put(root / "data")
    paths, provenance = store.locate("mini")
    assert {name: path.read_bytes() for name, path in paths.items()} == FILES
    assert provenance == {"name": "mini", "sha256": slow_set_checksum(FILES), "variant": "origin"}
    monkeypatch.setenv("XAI_DATA", str(put(tmp_path / "prepared")))
    paths, again = store.locate("mini")
    assert all(path.is_relative_to(tmp_path / "prepared") for path in paths.values())
    assert again == {**provenance, "variant": "prepared"}


def test_an_archive_has_the_checksum_of_the_files_in_it_and_a_copy_is_prepared(root):
    put(root / "data", {"later.zip": ZIP})
    expected = slow_set_checksum({"index.csv": b"id", "images/a.jpg": b"image"})
    assert store.locate("later")[1] == {"name": "later", "sha256": expected, "variant": "prepared"}
    (root / "data/contents/later.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"later\.csv is missing: it lists the set's files"):
        store.locate("later")


def test_the_same_content_has_the_names_that_older_records_use(root):
    lists = root / "data/splits/later.csv"
    inside, archive = slow_set_checksum({"index.csv": b"id", "images/a.jpg": b"image"}), hashlib.sha256(ZIP).hexdigest()
    assert store.same_content("later", inside)
    assert store.same_content("later", archive)
    assert store.same_content("inside", "anything")
    assert store.same_content("not registered", "anything")
    assert not store.same_content("later", "0" * 64)
    put(root / "data/splits", {"later.csv": b"id,split"})
    listed = hashlib.sha256(lists.read_bytes()).hexdigest()
    for checksum in (inside, archive):
        both = hashlib.sha256(f"later.zip {checksum}\nsplits/later.csv {listed}\n".encode()).hexdigest()
        assert store.same_content("later", both)
        put(root.parent / "other/data/splits", {"later.csv": b"id,split\nx,train"})
        assert not store.same_content("later", both, root.parent / "other")
    assert store.same_content("mini", slow_set_checksum(FILES))
    assert not store.same_content("mini", hashlib.sha256(FILES["MINI/raw/one.gz"]).hexdigest())


def test_half_a_set_in_xai_data_is_passed_over(root, tmp_path, monkeypatch):
    put(root / "data")
    put(tmp_path / "prepared", {"MINI/raw/one.gz": FILES["MINI/raw/one.gz"]})
    monkeypatch.setenv("XAI_DATA", str(tmp_path / "prepared"))
    assert store.locate("mini")[1]["variant"] == "origin"


def test_missing_names_the_set_every_place_and_the_one_command(root, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError) as error:
        store.locate("mini")
    text = str(error.value)
    assert "data set 'mini' (set mini)" in text
    assert "XAI_DATA: not set" in text
    assert f"{root / 'data'} lacks MINI/raw/one.gz, MINI/raw/two.gz" in text
    assert text.endswith("\nTo get it, run: python -m xai_utils.data fetch mini")
    put(tmp_path / "prepared", {"MINI/raw/one.gz": b"first file"})
    monkeypatch.setenv("XAI_DATA", str(tmp_path / "prepared"))
    with pytest.raises(FileNotFoundError, match=r"prepared lacks MINI/raw/two\.gz\n"):
        store.locate("mini")


@pytest.mark.parametrize("damaged", [b"first f", b"First file"])
def test_damaged_file_in_xai_data_is_named_and_left_alone(root, tmp_path, monkeypatch, damaged):
    put(root / "data")  # an intact copy elsewhere does not hide the fault
    put(tmp_path / "prepared", {**FILES, "MINI/raw/one.gz": damaged})
    monkeypatch.setenv("XAI_DATA", str(tmp_path / "prepared"))
    before = tree(tmp_path / "prepared")
    with pytest.raises(ValueError, match="left untouched: replace it") as error:
        store.locate("mini")
    text = str(error.value)
    assert str(tmp_path / "prepared/MINI/raw/one.gz") in text
    assert hashlib.sha256(b"first file").hexdigest() in text
    assert ("7 bytes, expected 10" if len(damaged) == 7 else hashlib.sha256(damaged).hexdigest()) in text
    assert tree(tmp_path / "prepared") == before


@pytest.mark.parametrize("damaged", [b"first f", b"First file"])
def test_damaged_file_under_data_is_moved_aside_never_deleted(root, damaged):
    put(root / "data", {**FILES, "MINI/raw/one.gz": damaged, "MINI/raw/one.gz.corrupt-1": b"older"})
    with pytest.raises(ValueError, match=r"damaged.*moved to .*one\.gz\.corrupt-2\. To get it .*fetch mini"):
        store.locate("mini")
    found = tree(root / "data")
    assert found["MINI/raw/one.gz.corrupt-2"] == damaged
    assert found["MINI/raw/one.gz.corrupt-1"] == b"older"
    assert "MINI/raw/one.gz" not in found
    with pytest.raises(FileNotFoundError):
        store.locate("mini")


def test_file_repaired_while_waiting_for_the_lock_stays_in_place(root, monkeypatch):
    put(root / "data", {**FILES, "MINI/raw/one.gz": b"short"})

    class Repairing:
        def __enter__(self):
            put(root / "data")

        def __exit__(self, *error):
            return None

    monkeypatch.setattr(store, "lock", Repairing)
    with pytest.raises(ValueError, match="replaced meanwhile by another process: try again"):
        store.locate("mini")
    assert store.locate("mini")[1]["variant"] == "origin"


def test_checksum_is_computed_once_and_again_after_a_change(root, monkeypatch):
    put(root / "data")
    count, real = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *arguments: count.append(1) or real(*arguments))
    store.locate("mini")
    store.locate("mini")
    assert len(count) == 2
    path = root / "data/MINI/raw/one.gz"
    path.write_bytes(b"First file")
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    with pytest.raises(ValueError, match="sha256 is"):
        store.locate("mini")


def test_look_up_of_embedded_and_unknown_sets(root):
    assert store.place(store.entry("inside")) == ("embedded", None)
    with pytest.raises(
        ValueError, match=r"unknown data set 'Mini'. Did you mean 'mini' or 'inside'\? Known: inside, later, mini"
    ):
        store.entry("Mini")
    with pytest.raises(ValueError, match=r"unknown data set 'zzz'. Known:"):
        store.entry("zzz")


# --- the registry


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"path": "../outside"}, "path"),
        ({"path": "/etc/passwd"}, "path"),
        ({"path": "a/../../b"}, "path"),
        ({"path": "a\\b"}, "path"),
        ({"bytes": 0}, "bytes"),
        ({"bytes": "10"}, "bytes"),
        ({"sha256": "abc"}, "sha256"),
        ({"md5": "abc"}, "md5"),
    ],
)
def test_registry_refuses_a_bad_file_entry(root, change, named):
    path = root / "data/registry.yaml"
    entries = yaml.safe_load(path.read_text())
    entries["mini"]["files"][0].update(change)
    path.write_text(yaml.safe_dump(entries))
    with pytest.raises(ValueError, match=rf"registry\.yaml is not valid(?s:.*)files\.0\.{named}"):
        store.registry()


@pytest.mark.parametrize("text", ["[1, 2]", "", "mini: 3", "mini: {title: x}", "a: [", "mini: {recipe: magic}"])
def test_registry_that_is_no_registry(root, text):
    (root / "data/registry.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"registry\.yaml is not valid"):
        store.registry()


BUILT = {"cifar10", "road_cracks", "rdd2022_sample", "crackforest", "magnetic_tiles", "chest_xray", "stanford_cars"}


def test_the_repositorys_registry_lists_every_set_and_how_to_get_it(monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(CHECKOUT))
    sets = store.registry()
    recipes = {"digits": "embedded", "mnist": "direct", "rdd2022": "unpack", **dict.fromkeys(BUILT, "build")}
    assert {name: entry.recipe for name, entry in sets.items()} == recipes
    for name, entry in sets.items():
        assert all([entry.title, entry.licence, entry.citation, entry.source])
        assert all(url.startswith(("https://", "doi:10.")) for origin in entry.origins for url in origin.urls)
        assert bool(entry.origins) == (name != "digits")
        assert bool(entry.origin_tried) == (name not in ("digits", "rdd2022"))
        if name in BUILT:
            module = importlib.import_module(f"xai_utils.data.sets.{entry.module}")
            assert callable(getattr(module, f"build_{name}"))
            assert len(contents.read(store.contents_list(entry))) > 4
            assert len(entry.files) == 1
    mnist = sets["mnist"]
    assert [(o.bytes, o.hash, o.file) for o in mnist.origins] == [
        (file.bytes, f"sha256:{file.sha256}", file.path.rpartition("/")[2]) for file in mnist.files
    ]
    assert store.unpublished() == {"crackforest", "stanford_cars"} == {name for name in sets if sets[name].terms}
    assert sets["crackforest"].command == "python -m xai_utils.data fetch crackforest --accept crackforest"


def test_archives_of_repositories_are_pinned_to_a_commit(monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(CHECKOUT))
    seen = 0
    for name in BUILT - {"cifar10"}:
        for origin in store.entry(name).origins:
            (url,) = origin.urls
            form = r"https://github\.com/[\w-]+/([\w.-]+)/archive/([0-9a-f]{40})\.zip"
            repository, commit = re.fullmatch(form, url).groups()
            assert origin.top == f"{repository}-{commit}"
            seen += 1
        listed = origins.origin_list(name)
        assert len(listed) > 20
        assert all(size > 0 and re.fullmatch("[0-9a-f]{64}", sha256) for size, sha256 in listed.values())
    assert seen == 7


def test_the_standard_profile_needs_the_sets_that_are_said_to_be_of_it(monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(CHECKOUT))
    used = set()
    for path in (CHECKOUT / "results/standard").glob("*/*/seed_0/record.json"):
        used |= {source["name"] for source in json.loads(path.read_text())["provenance"]["data"]}
    sets = store.registry()
    needed = {name.removeprefix("rotated_") for name in used} & set(sets) - {"digits"}
    assert {name for name in sets if sets[name].standard} == needed


def test_what_was_tried_stands_in_the_readme_too(monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(CHECKOUT))
    text = " ".join((CHECKOUT / "data/README.md").read_text().split())
    for entry in store.registry().values():
        assert entry.origin_tried in text, entry.name


def test_the_repositorys_data_folder_ignores_downloads_and_keeps_the_rest(tmp_path):
    names = ["README.md", "registry.yaml", ".gitignore", "splits/mnist.csv", "origins/x.csv", "contents/x.csv"]
    names += ["tables/x.csv", "boxes/x.csv"]
    strays = [".fetch/x/0a.zip", "origins/x.zip", "MNIST/raw/x.gz", "x.zip", "x.gz.part", "splits/x.png", ".lock"]
    strays += ["MNIST/raw/x.gz.corrupt-1"]
    put(tmp_path, dict.fromkeys(names + strays, b"x"))
    shutil.copy(CHECKOUT / "data/.gitignore", tmp_path / ".gitignore")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    listing = ["git", "-C", str(tmp_path), "ls-files", "--others", "--exclude-standard"]
    found = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split()
    assert sorted(found) == sorted(names)


def test_package_names_are_lazy_and_complete(monkeypatch):
    monkeypatch.setattr(xai_utils, "data", xai_utils.data)  # put back afterwards
    for name in [name for name in sys.modules if name.startswith("xai_utils.data")]:
        monkeypatch.delitem(sys.modules, name)
    fresh = importlib.import_module("xai_utils.data")
    assert [name for name in sys.modules if name.startswith("xai_utils.data.")] == []
    assert sorted(dir(fresh)) == sorted(fresh.__all__)
    monkeypatch.undo()
    for name in {*xai_utils.data.__all__} - {"FAMILIES"}:
        assert getattr(xai_utils.data, name).__name__ == name
    assert {"mnist", "rdc", "road_cracks", "folder", "target_folder"} < {*xai_utils.data.FAMILIES}
    for name in {*xai_utils.data.FAMILIES} - {"folder", "target_folder"}:
        assert callable(getattr(importlib.import_module(f"xai_utils.data.sets.{name}"), f"load_{name}"))
    with pytest.raises(AttributeError, match="attribute nothing"):
        xai_utils.data.nothing


def test_described_helper_matches_the_stores_own_check(tmp_path):
    file = store.DataFile(**described("x", b"abc"))
    (tmp_path / "x").write_bytes(b"abc")
    assert store.problem(tmp_path / "x", file) is None
