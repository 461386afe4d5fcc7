"""From an origin to the prepared set: miniature origins, and everything that can be wrong with them."""

import errno
import io
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from data_server import PATIENCE, DataServer, tree, write_registry
from origin_files import TOP, as_csv, packed, picture, saved, write_origin
from PIL import Image

from xai_utils.data import contents, load, origins, store
from xai_utils.data.sets import magnetic_tiles

ROWS = [
    {"class": "MT_Crack", "id": "exp1_num_10", "group": 0, "split": "train", "width": 60, "height": 40},
    {"class": "MT_Free", "id": "exp1_num_99", "group": 1, "split": "test", "width": 40, "height": 60},
]
ARCHIVE = "magnetic_tile_defects.zip"


def tiles():
    """Files of the origin, and those of the prepared archive, made without the recipe."""
    origin, built = {}, {}
    for number, row in enumerate(ROWS):
        name, size = f"{row['class']}/{row['id']}", (row["width"], row["height"])
        soft = np.asarray(Image.open(io.BytesIO(picture(*size, seed=9 + number, kind="PNG", mode="L"))))
        hard = np.array([[255 if level > 127 else 0 for level in line] for line in soft], np.uint8)
        origin[f"{row['class']}/Imgs/{row['id']}.jpg"] = photograph = picture(*size, seed=number, mode="L")
        origin[f"{row['class']}/Imgs/{row['id']}.png"] = saved(soft, "PNG")
        built |= {f"images/{name}.jpg": photograph, f"masks/{name}.png": saved(hard, "PNG", optimize=True)}
    return origin, built | {"index.csv": as_csv(ROWS).encode()}


ORIGIN, BUILT = tiles()
SPLITS = "id,split\nMT_Crack/exp1_num_10,train\nMT_Free/exp1_num_99,test\n"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository that knows the miniature set, and `inside`, which is embedded."""
    monkeypatch.setenv("XAI_ROOT", str(tmp_path / "repo"))
    monkeypatch.delenv("XAI_DATA", raising=False)
    origin = {"whole": True, "besides": ["MT_Crack/Imgs/thumbs.db"]}
    write_tiles(tmp_path / "repo", origin=origin)
    return tmp_path / "repo"


def write_tiles(root, **fields):
    tables = {"magnetic_tiles": BUILT["index.csv"].decode()}
    options = {"tables": tables, "module": "magnetic_tiles"} | fields
    body = write_origin(root, "magnetic_tiles", ARCHIVE, BUILT, ORIGIN, **options)
    (root / "data/splits/magnetic_tiles.csv").write_text(SPLITS)
    return body


PACKED = packed(ORIGIN)  # made before a test fills the disk


def serving(body=None, script=()):
    return DataServer({"0a1b.zip": packed(ORIGIN | {"README.md": b"about"}) if body is None else body}, script)


def fetch(server, lines=None, **options):
    say = (lambda text: None) if lines is None else lines.append
    return origins.fetch("magnetic_tiles", mirror=server.url, say=say, **{"timeout": 5.0, **options})


def made(root):
    """Files below data/ that are neither lists nor unfinished work; what `locate` may find."""
    lists = ("origins/", "tables/", "contents/", "splits/", ".fetch/", "registry.yaml")
    return [name for name in tree(root / "data") if not name.startswith(lists)]


def in_archive(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# --- what comes out


def test_a_set_is_built_byte_for_byte_once_and_loads_as_the_prepared_one(root, tmp_path, monkeypatch):
    lines = []
    with serving(script=["chunked"]) as server:
        paths = fetch(server, lines)
        assert paths == [root / "data" / ARCHIVE]
        assert in_archive(*paths) == BUILT
        assert fetch(server, lines) == paths
        assert server.log == ["0a1b.zip"]
    assert lines[0] == "magnetic_tiles: 5 of 5 files identical"
    assert "already there (origin" in lines[-1]
    assert made(root) == [ARCHIVE]
    assert not list((root / "data/.fetch").iterdir())
    ours, (_, provenance) = load("magnetic_tiles", size=32), store.locate("magnetic_tiles")
    assert provenance["variant"] == "origin"
    assert provenance["sha256"] == store.sha256_of_lines({n: origins_sha(b) for n, b in BUILT.items()})
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / ARCHIVE).write_bytes(write_tiles(root))
    monkeypatch.setenv("XAI_DATA", str(tmp_path / "prepared"))
    theirs = load("magnetic_tiles", size=32)
    assert theirs.provenance == provenance | {"variant": "prepared"}
    assert ours.images.equal(theirs.images)
    assert ours.masks.equal(theirs.masks)
    assert ours.ids.tolist() == theirs.ids.tolist() == ["MT_Crack/exp1_num_10", "MT_Free/exp1_num_99"]


def origins_sha(body):
    return store.hashlib.sha256(body).hexdigest()


def test_the_same_archive_comes_out_every_time(root):
    bodies = []
    for _ in range(2):
        with serving() as server:
            bodies.append(fetch(server)[0].read_bytes())
        (root / "data" / ARCHIVE).unlink()
    assert bodies[0] == bodies[1]


def test_an_archive_built_elsewhere_may_stand_in_xai_data(root, tmp_path, monkeypatch):
    with serving() as server:
        (path,) = fetch(server)
    (tmp_path / "shared").mkdir()
    path.rename(tmp_path / "shared" / ARCHIVE)
    monkeypatch.setenv("XAI_DATA", str(tmp_path / "shared"))
    assert store.locate("magnetic_tiles")[1]["variant"] == "origin"


def test_other_bytes_of_the_same_mask_are_told_and_counted(root, monkeypatch):
    monkeypatch.setattr(magnetic_tiles, "as_png", lambda array: saved(array, "PNG", compress_level=1))
    lines = []
    with serving() as server:
        fetch(server, lines)
    assert "3 of 5 files identical, 2 with other bytes and the same picture" in lines[0]
    provenance = store.locate("magnetic_tiles")[1]
    assert (provenance["files_differ"], provenance["grey_levels"]) == (2, 0)
    assert provenance["sha256"] != store.listed_checksum(store.entry("magnetic_tiles"))
    assert store.same_content("magnetic_tiles", provenance["sha256"])
    assert load("magnetic_tiles", size=32).provenance == provenance


def test_a_mask_of_other_pixels_is_refused(root, monkeypatch):
    monkeypatch.setattr(magnetic_tiles, "as_png", lambda array: saved(255 - array, "PNG"))
    text = r"3 of 5 files identical, 2 wrong: masks/MT_Crack/exp1_num_10\.png has the sha256"
    with serving() as server, pytest.raises(ValueError, match=text):
        fetch(server)
    assert made(root) == []


def test_a_photograph_coded_by_another_library_is_compared_by_its_pixels(root, monkeypatch):
    photographs = {
        n: Image.open(io.BytesIO(picture(64, 48, seed, mode="L"))) for n, seed in (("a.jpg", 1), ("b.jpg", 2))
    }
    built = {name: saved(image, "JPEG", quality=90) for name, image in photographs.items()}
    write_origin(root, "magnetic_tiles", ARCHIVE, built, {}, coded_again=r".*\.jpg", module="magnetic_tiles")

    def build(files, quality):
        yield from ((name, saved(image, "JPEG", quality=quality)) for name, image in photographs.items())

    monkeypatch.setattr(magnetic_tiles, "build_magnetic_tiles", lambda files: build(files, 84))
    lines = []
    with serving() as server:
        fetch(server, lines)
    provenance = store.locate("magnetic_tiles")[1]
    assert provenance["files_differ"] == 2
    apart = []
    for name, image in photographs.items():
        ours, theirs = (
            np.asarray(Image.open(io.BytesIO(b))).astype(int) for b in (saved(image, "JPEG", quality=84), built[name])
        )
        apart += [abs(ours[y, x] - theirs[y, x]) for y in range(3, 48, 6) for x in range(4, 64, 8)]
    assert provenance["grey_levels"] == max(apart) > 0
    assert f"each: {max(apart)} of 255 grey levels" in lines[0]
    (root / "data" / ARCHIVE).unlink()
    photographs["b.jpg"] = Image.open(io.BytesIO(picture(64, 48, 3, mode="L")))  # another picture
    with (
        serving() as server,
        pytest.raises(ValueError, match=r"not the prepared set: 0 of 2 .* 1 wrong: b\.jpg has the sha"),
    ):
        fetch(server)
    assert made(root) == []


def test_what_is_built_otherwise_than_listed_is_not_kept(root, monkeypatch):
    more = {"images/x.jpg": b"more"} | {n: b for n, b in BUILT.items() if "MT_Free" not in n} | {"index.csv": b"other"}
    text = "what was built is not the prepared set: 2 of 5 files identical, 4 wrong"
    with serving() as server:
        with monkeypatch.context() as patch:
            patch.setattr(magnetic_tiles, "build_magnetic_tiles", lambda files: iter(more.items()))
            with pytest.raises(ValueError, match=text) as error:
                fetch(server)
        assert "images/MT_Free/exp1_num_99.jpg is missing" in str(error.value)
        assert made(root) == []
        fetch(server)
        assert server.log == ["0a1b.zip"]  # the download was right and is not loaded again


# --- origins that are wrong


def without(name):
    return {n: body for n, body in ORIGIN.items() if n != name}


PNG, JPG = "MT_Free/Imgs/exp1_num_99.png", "MT_Crack/Imgs/exp1_num_10.jpg"


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (without(PNG), rf"of 4 files of the origin, 1 missing \({PNG}\)\."),
        (ORIGIN | {PNG: ORIGIN[PNG] + b"x"}, rf"1 altered \({PNG}\)"),
        (ORIGIN | {JPG: ORIGIN[JPG][:-1] + b"x"}, rf"1 altered \({JPG}\)"),
        (ORIGIN | {JPG: ORIGIN[JPG][:200]}, rf"1 altered \({JPG}\)"),
        (without(PNG) | {"MT_Free/Imgs/new.png": b""}, rf"1 missing \({PNG}\), 1 not listed \(MT_Free/Imgs/new\.png\)"),
        (
            {n.replace("Imgs", "Images"): b for n, b in ORIGIN.items()},
            r"4 missing \(MT_Crack/Imgs/exp1_num_10\.jpg, .* …\)",
        ),
        ({}, "4 missing"),
    ],
)
def test_files_that_are_missing_altered_renamed_truncated_or_too_many_are_named(root, files, text):
    with serving(packed(files)) as server:
        with pytest.raises(ValueError, match=rf"^magnetic_tiles: .*{text}.*The download was removed"):
            fetch(server)
        assert made(root) == []
        assert not list((root / "data/.fetch/magnetic_tiles").iterdir())
        server.files["0a1b.zip"] = packed(ORIGIN | {"MT_Crack/Imgs/thumbs.db": b"allowed", "other/file": b"unused"})
        fetch(server)
    assert made(root) == [ARCHIVE]


def link(name, kind=stat.S_IFLNK):
    info = zipfile.ZipInfo(f"{TOP}/{name}")
    info.external_attr = (kind | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("/etc/passwd", "is absolute"),
        ("C:/windows/x", "is absolute"),
        ("../x", "leads out"),
        (f"{TOP}/a/../../x", "leads out"),
        (f"{TOP}\\..\\..\\x", "leads out"),
        (f"{TOP}/{PNG}", "comes twice"),
        (link("link"), "is a link"),
        (link("device", stat.S_IFCHR), "is a link or a special file"),
        ("elsewhere/x", f"is not in the folder '{TOP}'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unsafe_members_are_refused_and_nothing_is_written(root, member, reason):
    with serving(packed(ORIGIN, extra=[(member, b"bad")])) as server, pytest.raises(ValueError, match=reason):
        fetch(server)
    assert made(root) == []
    assert not (root / "x").exists()


def test_a_wrong_top_folder_is_named(root):
    text = f"is not in the folder '{TOP}' that the archive should hold"
    with serving(packed(ORIGIN, top="road-images-other")) as server, pytest.raises(ValueError, match=text):
        fetch(server)
    assert made(root) == []


def test_a_bomb_is_refused_before_it_is_unpacked(root, monkeypatch):
    monkeypatch.setattr(origins, "LIMIT", 50_000)
    bomb = packed(without(PNG) | {PNG: bytes(60_000)})
    assert len(bomb) < 20_000
    with (
        serving(bomb) as server,
        pytest.raises(ValueError, match=rf"1 altered \({PNG}\)"),
    ):  # its size is not the listed one
        fetch(server)
    rows = as_csv([{"path": PNG, "bytes": 60_000, "sha256": "0" * 64}])
    (root / "data/origins/magnetic_tiles.csv").write_text(rows)
    with (
        serving(bomb) as server,
        pytest.raises(ValueError, match=f"{PNG} would unpack to 60000 bytes, more than the limit"),
    ):
        fetch(server)
    assert made(root) == []


@pytest.mark.parametrize("spoil", ["cut", "flipped", "encrypted", "text", "empty"])
def test_a_damaged_archive_is_removed_and_loaded_again(root, spoil):
    raw = bytearray(packed(ORIGIN))
    if spoil == "cut":
        raw = raw[:-30]
    elif spoil == "flipped":
        raw[len(raw) // 3] ^= 255
    elif spoil == "encrypted":
        raw[raw.index(b"PK\x01\x02") + 8] |= 1
    else:
        raw = b"no zip" if spoil == "text" else b""
    with serving(bytes(raw)) as server:
        with pytest.raises(ValueError, match=r"is encrypted|not an intact archive|cannot be read|altered"):
            fetch(server)
        server.files["0a1b.zip"] = packed(ORIGIN)
        fetch(server)
    assert made(root) == [ARCHIVE]


# --- interruptions


def test_a_disk_that_fills_up_while_building_leaves_nothing_and_keeps_the_download(root, monkeypatch):
    def full(self, info, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving(PACKED) as server:
        with monkeypatch.context() as patch:
            patch.setattr(zipfile.ZipFile, "writestr", full)
            with pytest.raises(OSError, match="half-built could not be written: No space left on device") as error:
                fetch(server)
        assert error.value.errno == errno.ENOSPC
        assert made(root) == []
        fetch(server)
        assert server.log == ["0a1b.zip"]
    assert made(root) == [ARCHIVE]


SLOW = """
import sys, time
from xai_utils.data import origins
from xai_utils.data.sets import magnetic_tiles
whole = magnetic_tiles.build_magnetic_tiles
def build(files):
    for number, file in enumerate(whole(files)):
        yield file
        if number == 1:
            print("building", flush=True)
            time.sleep(60)
magnetic_tiles.build_magnetic_tiles = build
origins.fetch("magnetic_tiles", mirror=sys.argv[1])
"""


def start(root, *command):
    environment = {**os.environ, "XAI_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *command]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def killed(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_killed_while_loading_leaves_nothing_that_counts(root):
    with serving(script=["stall 1000"]) as server:
        process = start(root, "-m", "xai_utils.data", "fetch", "magnetic_tiles", "--mirror", server.url)
        try:
            assert server.sent.wait(PATIENCE), process.communicate(timeout=1)
            deadline = time.monotonic() + PATIENCE / 2
            while not (parts := list((root / "data/.fetch/magnetic_tiles").glob("*"))):
                assert time.monotonic() < deadline, "no file was begun"
                time.sleep(0.01)
        finally:
            killed(process)
        assert [part.name for part in parts] != ["0a1b.zip"]
        assert made(root) == []
        with pytest.raises(FileNotFoundError):
            store.locate("magnetic_tiles")
        fetch(server)
    assert made(root) == [ARCHIVE]
    assert not list((root / "data/.fetch").iterdir())


def test_killed_while_building_leaves_nothing_that_counts_and_keeps_the_download(root):
    with serving() as server:
        process = start(root, "-c", SLOW, server.url)
        try:
            assert process.stdout.readline() == b"building\n"
        finally:
            killed(process)
        assert {path.name for path in (root / "data/.fetch/magnetic_tiles").iterdir()} == {"0a1b.zip", "half-built"}
        assert made(root) == []
        with pytest.raises(FileNotFoundError, match="was not found"):
            load("magnetic_tiles")
        fetch(server)
        assert server.log == ["0a1b.zip"]
    assert made(root) == [ARCHIVE]


@pytest.mark.parametrize("first", ["thread", "process"])
def test_two_fetches_at_once_build_once(root, first):
    lines, errors = [], []
    with serving(script=["gate"]) as server:

        def second_says(text):
            lines.append(text)
            if "waiting" in text:
                server.open_gate.set()  # only now may the first one go on

        def in_thread():
            try:
                fetch(server, timeout=PATIENCE)
            except Exception as error:
                errors.append(error)

        if first == "process":
            process = start(root, "-m", "xai_utils.data", "fetch", "magnetic_tiles", "--mirror", server.url)
        else:
            worker = threading.Thread(target=in_thread)
            worker.start()
        assert server.sent.wait(PATIENCE)
        origins.fetch("magnetic_tiles", mirror=server.url, say=second_says, timeout=PATIENCE)
        if first == "process":
            output, _ = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, output
        else:
            worker.join()
        assert server.log == ["0a1b.zip"]
    assert errors == []
    assert "another fetch is running" in lines[0]
    assert "already there" in lines[-1]
    assert made(root) == [ARCHIVE]


# --- what is there already


@pytest.mark.parametrize("damage", ["cut", "member", "comment"])
def test_a_damaged_build_is_moved_aside_and_built_again(root, damage):
    with serving() as server:
        (path,) = fetch(server)
        raw = bytearray(path.read_bytes())
        at = raw.index(BUILT["images/MT_Crack/exp1_num_10.jpg"]) + 50
        if damage == "member":
            raw[at] ^= 255
        path.write_bytes(raw[:-200] if damage == "cut" else raw[:-1] if damage == "comment" else raw)
        with pytest.raises(
            ValueError, match=r"is damaged.* It was moved to .*\.corrupt-1\. To get it again, run: python -m"
        ) as e:
            load("magnetic_tiles")
        assert ("images/MT_Crack/exp1_num_10.jpg cannot be read" in str(e.value)) == (damage == "member")
        with pytest.raises(FileNotFoundError):
            load("magnetic_tiles")
        path.write_bytes(raw[:-200])
        lines = []
        fetch(server, lines)
        assert "was damaged; moved to" in lines[0]
    assert made(root) == [ARCHIVE, f"{ARCHIVE}.corrupt-1", f"{ARCHIVE}.corrupt-2"]
    assert store.locate("magnetic_tiles")[1]["variant"] == "origin"


def test_prepared_copy_is_enough_and_stays_untouched(root, tmp_path, monkeypatch):
    prepared, lines = tmp_path / "prepared", []
    prepared.mkdir()
    body = write_tiles(root)
    (prepared / ARCHIVE).write_bytes(body)
    monkeypatch.setenv("XAI_DATA", str(prepared))
    with serving() as server:
        assert fetch(server, lines) == [prepared / ARCHIVE]
        assert "already there (prepared" in lines[-1]
        (prepared / ARCHIVE).write_bytes(body[:50])
        with pytest.raises(ValueError, match=r"is damaged: it has 50 bytes, expected .* left untouched: replace it"):
            fetch(server)
        assert server.log == []
    assert tree(prepared) == {ARCHIVE: body[:50]}


def test_fetch_never_writes_into_xai_data_even_if_it_is_the_data_folder(root, monkeypatch):
    monkeypatch.setenv("XAI_DATA", "data")  # relative: from the repository's root
    with serving() as server, pytest.raises(ValueError, match="never written to"):
        fetch(server)
    assert made(root) == []


def test_terms_are_shown_and_must_be_accepted(root):
    write_tiles(root, terms="For research only.", published=False)
    command = "python -m xai_utils.data fetch magnetic_tiles --accept magnetic_tiles"
    with serving() as server:
        with pytest.raises(PermissionError, match=f"accept its terms of use: For research only. If you do: {command}"):
            fetch(server)
        assert server.log == []
        with pytest.raises(FileNotFoundError, match=f"To get it, run: {command}$"):
            load("magnetic_tiles")
        lines = []
        fetch(server, lines, accept=True)
    assert lines[0] == "magnetic_tiles: terms of use: For research only."
    assert store.unpublished() == {"magnetic_tiles"}


def test_without_a_network_one_sentence_says_what_to_do(root):
    with DataServer({}) as server:
        url = server.url
    with pytest.raises(ConnectionError) as error:
        origins.fetch("magnetic_tiles", mirror=url, say=lambda text: None)
    assert str(error.value) == (
        f"magnetic_tiles: 0a1b.zip could not be loaded from {url}/0a1b.zip: the host cannot be reached. Connect to "
        "the network and run the same command again, name a --mirror, or set XAI_DATA to a folder that holds the "
        "prepared set."
    )


def test_embedded_and_unknown_sets(root):
    write_registry(root, {"inside": ("embedded", [], {})})
    lines = []
    assert origins.fetch("inside", say=lines.append) == []
    assert "embedded" in lines[0]
    with pytest.raises(ValueError, match=r"unknown data set 'insid'\. Did you mean 'inside'"):
        origins.fetch("insid")


# --- sets whose files are loaded as they are


FILES = {"MINI/raw/one.gz": bytes(range(256)) * 60, "MINI/raw/two.gz": b"labels" * 500}


@pytest.mark.parametrize("damaged", [None, b"short", b"\1" + FILES["MINI/raw/one.gz"][1:]])
def test_files_that_need_no_recipe_go_to_their_place_once(root, damaged):
    write_registry(root, {"mini": ("direct", ["https://example.org/mini"], FILES)})
    if damaged is not None:
        (root / "data/MINI/raw").mkdir(parents=True)
        (root / "data/MINI/raw/one.gz").write_bytes(damaged)
    lines = []
    with DataServer({name.rpartition("/")[2]: body for name, body in FILES.items()}) as server:
        for _ in range(2):
            paths = origins.fetch("mini", mirror=server.url, say=lines.append)
            assert {path.relative_to(root / "data").as_posix(): path.read_bytes() for path in paths} == FILES
        assert server.log == ["one.gz", "two.gz"]
        paths[1].unlink()
        origins.fetch("mini", mirror=server.url, say=lines.append)
        assert server.log == ["one.gz", "two.gz", "two.gz"]
    assert made(root) == [*list(FILES)[:1], *["MINI/raw/one.gz.corrupt-1"] * (damaged is not None), *list(FILES)[1:]]
    assert store.locate("mini")[1]["variant"] == "origin"


# --- a set that is kept as a folder


def country(name, inner=""):
    files = {
        "train/images/a.jpg": b"image",
        "train/annotations/xmls/a.xml": b"<annotation/>",
        "test/images/b.jpg": b"b",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, body in files.items():
            archive.writestr(f"{inner}{path.replace('a.', f'{name}_000001.')}", body)
    return out.getvalue()


def write_folder(root):
    write_registry(root, {"rdd": ("unpack", ["https://example.org/RDD.zip"], {})})
    path = root / "data/registry.yaml"
    path.write_text(path.read_text() + "  folder: RDD2022\n")


def test_a_set_that_is_kept_as_a_folder_is_unpacked_whole(root):
    write_folder(root)
    inner = {"RDD2022/Japan.zip": country("Japan", "Japan/"), "RDD2022/India.zip": country("India")}
    with DataServer({"RDD.zip": packed(inner)}) as server:
        lines = []
        folder = [root / "data/RDD2022"]
        assert origins.fetch("rdd", mirror=server.url, say=lines.append) == folder
        assert origins.fetch("rdd", mirror=server.url, say=lines.append) == folder
        assert server.log == ["RDD.zip"]
    assert sorted(tree(*folder)) == sorted(
        f"{name}/{path}"
        for name in ("Japan", "India")
        for path in (
            f"train/images/{name}_000001.jpg",
            f"train/annotations/xmls/{name}_000001.xml",
            "test/images/b.jpg",
        )
    )
    assert store.place(store.entry("rdd")) == ("origin", root / "data")
    assert not (root / "data/.fetch/rdd").exists()


@pytest.mark.parametrize("inner", [{"India.zip": b"no zip"}, {"readme.txt": b"no zip file"}, {"a.zip": None}])
def test_a_folder_that_cannot_be_unpacked_is_not_there(root, inner, monkeypatch):
    write_folder(root)
    monkeypatch.setattr(origins, "FULL", 300 if None in inner.values() else 1 << 30)  # a bomb
    body = packed({name: body or country("India") for name, body in inner.items()})
    with DataServer({"RDD.zip": body}) as server:
        with pytest.raises(ValueError, match=r"^rdd: .*(not an intact zip|holds no zip file|more than the limit)"):
            origins.fetch("rdd", mirror=server.url, say=lambda text: None)
        assert store.place(store.entry("rdd"))[0] == "missing"
        server.files["RDD.zip"] = packed({"India.zip": country("India")})
        monkeypatch.setattr(origins, "FULL", 1 << 30)
        (root / "data/.fetch/rdd/RDD.zip").unlink()
        origins.fetch("rdd", mirror=server.url, say=lambda text: None)
    assert (root / "data/RDD2022/India/train/images/India_000001.jpg").is_file()


# --- the list of contents


def test_the_list_of_contents_is_read_strictly(tmp_path):
    path = tmp_path / "x.csv"
    with pytest.raises(FileNotFoundError, match=r"x\.csv is missing.*restore it"):
        contents.read(path)
    for text in ("", "path,sha256\na,b\n", "path,sha256,pixels\na,b\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match="must have the columns path,sha256,pixels"):
            contents.read(path)
