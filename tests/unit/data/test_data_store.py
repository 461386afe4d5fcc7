"""The data store: roots, registry, look-up, checksums, unpacking."""

import hashlib
import importlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from data_server import described, tree, write_registry

import xai_utils.data
from xai_utils.data import store

CHECKOUT = Path(__file__).resolve().parents[3]
FILES = {"MINI/raw/one.gz": b"first file", "MINI/raw/two.gz": b"second file"}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository of its own, with `mini` and `later` in its registry and no network to go to."""
    monkeypatch.setenv("XAI_ROOT", str(tmp_path / "repo"))
    monkeypatch.delenv("XAI_DATA", raising=False)
    sets = {"mini": ("direct", ["https://example.org/mini"], FILES), "later": ("later", [], {"later.zip": b"zip"})}
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


def test_set_of_one_file_has_the_checksum_of_the_file_and_a_copy_is_prepared(root):
    put(root / "data", {"later.zip": b"zip"})
    expected = hashlib.sha256(b"zip").hexdigest()
    assert store.locate("later")[1] == {"name": "later", "sha256": expected, "variant": "prepared"}


def test_half_a_set_in_xai_data_is_passed_over(root, tmp_path, monkeypatch):
    put(root / "data")
    put(tmp_path / "prepared", {"MINI/raw/one.gz": FILES["MINI/raw/one.gz"]})
    monkeypatch.setenv("XAI_DATA", str(tmp_path / "prepared"))
    assert store.locate("mini")[1]["variant"] == "origin"


def test_missing_names_the_set_every_place_and_both_ways(root, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError) as error:
        store.locate("mini")
    text = str(error.value)
    assert "data set 'mini' (set mini)" in text
    assert "XAI_DATA: not set" in text
    assert f"{root / 'data'} lacks MINI/raw/one.gz, MINI/raw/two.gz" in text
    assert "set XAI_DATA to a folder" in text
    assert "python -m xai_utils.data fetch mini" in text
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
    with pytest.raises(ValueError, match=r"damaged.*moved to .*one\.gz\.corrupt-2\. To get it again:.*fetch mini"):
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

    monkeypatch.setattr(store, "_lock", Repairing)
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


def test_the_repositorys_registry_lists_every_set(monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(CHECKOUT))
    sets = store.registry()
    later = {"cifar10", "road_cracks", "rdd2022_sample", "crackforest", "magnetic_tiles", "chest_xray", "stanford_cars"}
    assert {name: entry.recipe for name, entry in sets.items()} == {
        "digits": "embedded",
        "mnist": "direct",
        **dict.fromkeys(later, "later"),
    }
    for entry in sets.values():
        assert not entry.origin_tried
        assert all(store._safe(url) for url in entry.origin_urls)
        assert all([entry.title, entry.licence, entry.citation, entry.source])
    assert sets["mnist"].origin_files == sets["mnist"].files
    assert [url.split("/")[2] for url in sets["mnist"].origin_urls] == [
        "ossci-datasets.s3.amazonaws.com",
        "storage.googleapis.com",
    ]


def test_the_repositorys_data_folder_ignores_downloads_and_keeps_the_rest(tmp_path):
    names = ["README.md", "registry.yaml", ".gitignore", "splits/mnist.csv"]
    strays = ["MNIST/raw/x.gz", "x.zip", "x.gz.part", "splits/x.png", ".lock", "MNIST/raw/x.gz.corrupt-1"]
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


# --- unpacking


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for member, body in members:
            out.writestr(member, body)
    return path


def test_unpack_writes_every_member(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("index.csv", b"id"), ("images/", b""), ("images/a/1.jpg", b"\xff" * 3000)])
    assert store.unpack(archive, tmp_path / "deep/out") == tmp_path / "deep/out"
    assert tree(tmp_path / "deep") == {"out/index.csv": b"id", "out/images/a/1.jpg": b"\xff" * 3000}
    with pytest.raises(FileExistsError, match="exists already"):
        store.unpack(archive, tmp_path / "deep/out")


def link():
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("/etc/passwd", "is absolute"),
        ("C:/windows/x", "is absolute"),
        ("../x", "leads out"),
        ("a/../../x", "leads out"),
        ("a\\..\\..\\x", "leads out"),
        ("good.txt", "comes twice"),
        (link(), "is a link"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unpack_refuses_unsafe_members_and_leaves_nothing(tmp_path, member, reason):
    archive = make_zip(tmp_path / "a.zip", [("good.txt", b"good"), (member, b"bad")])
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=rf"{reason}.*nothing was unpacked"):
        store.unpack(archive, tmp_path / "out")
    assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_unpack_stops_at_the_limit_even_if_the_headers_lie(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("zeros", bytes(100_000))])
    store.unpack(archive, tmp_path / "enough", limit=100_000)
    with pytest.raises(ValueError, match="more than the limit"):
        store.unpack(archive, tmp_path / "out", limit=99_999)
    halves = make_zip(tmp_path / "halves.zip", [("a", bytes(600)), ("b", bytes(400))])
    with pytest.raises(ValueError, match="more than the limit"):
        store.unpack(halves, tmp_path / "out", limit=999)
    raw = archive.read_bytes()
    lying = raw.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lying != raw
    archive.write_bytes(lying)
    with pytest.raises(ValueError, match=r"not an intact zip|more than the limit"):
        store.unpack(archive, tmp_path / "out", limit=50)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "enough", "halves.zip"]


@pytest.mark.parametrize("spoil", ["cut", "flipped", "encrypted", "text"])
def test_unpack_of_a_damaged_zip_leaves_nothing(tmp_path, spoil):
    archive = make_zip(tmp_path / "a.zip", [("x.txt", bytes(range(256)) * 20)])
    raw = bytearray(archive.read_bytes())
    if spoil == "cut":
        raw = raw[:-30]
    elif spoil == "flipped":
        raw[60] ^= 255
    elif spoil == "encrypted":
        raw[raw.index(b"PK\x01\x02") + 8] |= 1
    else:
        raw = b"no zip"
    archive.write_bytes(raw)
    with pytest.raises(ValueError, match="is encrypted" if spoil == "encrypted" else "not an intact zip"):
        store.unpack(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_described_helper_matches_the_stores_own_check(tmp_path):
    file = store.DataFile(**described("x", b"abc"))
    (tmp_path / "x").write_bytes(b"abc")
    assert store.problem(tmp_path / "x", file) is None
