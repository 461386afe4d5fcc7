"""`python -m xai_utils.data`: what it prints and its exit codes."""

import runpy
import sys

import pytest
import yaml
from data_server import DataServer, tree, write_registry
from origin_files import packed, write_origin

from xai_utils.data.__main__ import main
from xai_utils.data.sets import magnetic_tiles

FILES = {"MINI/one.gz": b"first file" * 99, "MINI/two.gz": b"second file"}
INSIDE = {"index.csv": b"id", "images/a.jpg": b"image"}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    monkeypatch.delenv("XAI_DATA", raising=False)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setattr(magnetic_tiles, "build_terms", lambda files: iter(INSIDE.items()), raising=False)
    write_origin(tmp_path, "terms", "terms.zip", INSIDE, module="magnetic_tiles", terms="Only for research.")
    registry = tmp_path / "data/registry.yaml"
    built = yaml.safe_load(registry.read_text())
    write_registry(tmp_path, {"mini": ("direct", ["https://127.0.0.1:9/mini"], FILES), "inside": ("embedded", [], {})})
    entries = yaml.safe_load(registry.read_text()) | built
    for name in ("mini", "terms"):
        entries[name]["standard"] = True
    registry.write_text(yaml.safe_dump(entries, sort_keys=False))
    return tmp_path


def served(script=()):
    files = {path.rsplit("/", 1)[1]: body for path, body in FILES.items()}
    return DataServer(files | {"0a1b.zip": packed({"readme": b"."})}, script)


def test_list_fetch_list_verify(root, capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[::2]] == [
        ["inside", "embedded"],
        ["mini", "missing"],
        ["terms", "missing"],
    ]
    assert lines[2].endswith("0 MB, about 1 min at 5 MB/s, from 127.0.0.1")
    assert lines[4].endswith("from example.org")
    assert lines[5].split(maxsplit=1) == ["MIT;", "needs --accept terms"]
    with served() as server:
        assert main(["fetch", "mini", "--mirror", server.url]) == 0
        assert main(["fetch", "mini", "--mirror", server.url, "--timeout", "2"]) == 0
        assert len(server.log) == 2
    assert "already there" in capsys.readouterr().err
    assert main(["list"]) == 0
    line = f"mini            origin    0 MB, about 1 min at 5 MB/s, from 127.0.0.1  ({root / 'data'})"
    assert line in capsys.readouterr().out
    assert main(["verify"]) == 0
    out = capsys.readouterr().out
    assert out.count("is right") == 2
    assert "terms: missing" in out
    assert "inside: embedded" in out


def test_all_of_the_standard_profile_and_its_terms(root, capsys):
    with served() as server:
        assert main(["fetch", "standard", "--dry-run", "--mirror", server.url]) == 0
        captured = capsys.readouterr()
        assert captured.err.startswith("2 sets, 2 to load: 0 MB, about 1 min at 5 MB/s; ")
        assert captured.out.splitlines() == [
            f"mini: {server.url}/one.gz (990 bytes)",
            f"mini: {server.url}/two.gz (11 bytes)",
            f"terms: {server.url}/0a1b.zip (100,000 bytes)",
            "terms: Only for research. To accept that: --accept terms",
        ]
        assert server.log == []
        assert main(["fetch", "standard", "--mirror", server.url]) == 1  # what may be loaded is loaded
        err = capsys.readouterr().err
        assert "error: terms is not loaded before you accept its terms of use: Only for research." in err
        assert server.log == ["one.gz", "two.gz"]
        assert main(["fetch", "standard", "--accept", "terms", "--mirror", server.url]) == 0
        assert server.log == ["one.gz", "two.gz", "0a1b.zip"]
        assert "terms: terms of use: Only for research." in capsys.readouterr().err
    assert main(["verify", "terms"]) == 0
    assert capsys.readouterr().out == f"terms: {root / 'data/terms.zip'}: 2 of 2 files identical\n"


def test_one_set_that_cannot_be_had_does_not_hold_up_the_others(root, capsys):
    with served(["status 404"] * 2) as server:
        assert main(["fetch", "mini", "terms", "--accept", "terms", "--mirror", server.url]) == 1
    assert "error: mini: one.gz could not be loaded" in capsys.readouterr().err
    assert (root / "data/terms.zip").is_file()


def test_verify_names_every_wrong_file_in_either_place_and_touches_nothing(root, tmp_path, monkeypatch, capsys):
    with served() as server:
        main(["fetch", "terms", "--accept", "terms", "--mirror", server.url])
    path = root / "data/terms.zip"
    path.write_bytes(path.read_bytes().replace(b"image\x00", b"imago\x00", 1).replace(b"imagePK", b"imagoPK"))
    (root / "data/MINI").mkdir()
    (root / "data/MINI/one.gz").write_bytes(b"damaged")
    prepared = tmp_path / "prepared"
    (prepared / "MINI").mkdir(parents=True)
    (prepared / "MINI/two.gz").write_bytes(b"Second file")
    monkeypatch.setenv("XAI_DATA", str(prepared))
    before = tree(root)
    capsys.readouterr()
    assert main(["verify"]) == 1
    out = capsys.readouterr().out
    assert f"{root / 'data/MINI/one.gz'} is damaged: it has 7 bytes, expected 990" in out
    assert f"{prepared / 'MINI/two.gz'} is damaged: its sha256 is" in out
    assert f"terms: {path}: images/a.jpg cannot be read" in out
    assert f"terms: {path}: 1 of 2 files identical, 1 wrong: images/a.jpg cannot be read" in out
    assert main(["verify", "inside"]) == 0
    assert main(["verify", "mini"]) == 1  # asked for by name, and missing
    assert tree(root) == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["fetch", "minni"], "unknown data set 'minni'. Did you mean 'mini'"),
        (["fetch", "mini", "--accept", "term"], "unknown data set 'term'. Did you mean 'terms'"),
        (["verify", "minni"], "unknown data set 'minni'"),
        (["fetch", "terms"], "accept its terms of use"),
        (["fetch", "mini", "--mirror", "http://example.org"], "refused"),
        (["fetch", "mini", "--timeout", "0"], "timeout is 0.0"),
    ],
)
def test_failures_exit_1_with_one_error_and_no_traceback(root, capsys, arguments, text):
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert text in captured.err


def test_wrong_xai_data_exits_1(root, monkeypatch, capsys):
    monkeypatch.setenv("XAI_DATA", str(root / "gone"))
    for command in (["list"], ["verify"], ["fetch", "mini"]):
        assert main(command) == 1
        assert "is not a folder" in capsys.readouterr().err


def test_interrupt_exits_130(root, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("xai_utils.data.origins.fetch", interrupted)
    assert main(["fetch", "mini"]) == 130
    assert "finished downloads are kept" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["fetch"], ["fetsch", "mini"], ["fetch", "mini", "--timeout", "soon"]])
def test_wrong_usage_exits_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: python -m xai_utils.data" in capsys.readouterr().err


def test_as_a_module_it_exits_with_the_code(root, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["data", "verify", "mini"])
    monkeypatch.delitem(sys.modules, "xai_utils.data.__main__")
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("xai_utils.data", run_name="__main__")
    assert stop.value.code == 1
    assert capsys.readouterr().out == "mini: missing\n"
