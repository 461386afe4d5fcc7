"""`python -m xai_utils.data`: what it prints and its exit codes."""

import runpy
import sys

import pytest
from data_server import DataServer, tree, write_registry

from xai_utils.data.__main__ import main

FILES = {"MINI/one.gz": b"first file" * 99, "MINI/two.gz": b"second file"}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    monkeypatch.delenv("XAI_DATA", raising=False)
    sets = {"mini": ("direct", ["https://127.0.0.1:9/mini"], FILES), "later": ("later", [], {"later.zip": b"zip"})}
    write_registry(tmp_path, {**sets, "inside": ("embedded", [], {})})
    return tmp_path


def served(script=()):
    return DataServer({path.rsplit("/", 1)[1]: body for path, body in FILES.items()}, script)


def test_list_fetch_list_verify(root, capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = dict(line.split()[:2] for line in lines)
    assert found == {"name": "found", "mini": "missing", "later": "missing", "inside": "embedded"}
    assert all("MIT" in line for line in lines[1:])
    with served() as server:
        assert main(["fetch", "mini", "--mirror", server.url]) == 0
        assert main(["fetch", "mini", "--mirror", server.url, "--timeout", "2"]) == 0
        assert len(server.log) == 2
    assert "already there" in capsys.readouterr().err
    assert main(["list"]) == 0
    assert any(line.split()[:2] == ["mini", "origin"] for line in capsys.readouterr().out.splitlines())
    assert main(["verify"]) == 0
    out = capsys.readouterr().out
    assert out.count("is right") == 2
    assert "later: missing" in out
    assert "inside: embedded" in out


def test_verify_fails_for_a_damaged_file_in_either_place_and_touches_nothing(root, tmp_path, monkeypatch, capsys):
    (root / "data/MINI").mkdir()
    (root / "data/MINI/one.gz").write_bytes(b"damaged")
    prepared = tmp_path / "prepared"
    (prepared / "MINI").mkdir(parents=True)
    (prepared / "MINI/two.gz").write_bytes(b"Second file")
    monkeypatch.setenv("XAI_DATA", str(prepared))
    before = tree(root)
    assert main(["verify"]) == 1
    out = capsys.readouterr().out
    assert f"{root / 'data/MINI/one.gz'} is damaged: it has 7 bytes, expected 990" in out
    assert f"{prepared / 'MINI/two.gz'} is damaged: its sha256 is" in out
    assert main(["verify", "inside"]) == 0
    assert main(["verify", "later"]) == 1  # asked for by name, and missing
    assert tree(root) == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["fetch", "minni"], "unknown data set 'minni'. Did you mean 'mini'"),
        (["verify", "minni"], "unknown data set 'minni'"),
        (["fetch", "later"], "recipe comes with the paper"),
        (["fetch", "mini", "--mirror", "http://example.org"], "refused"),
        (["fetch", "mini", "--timeout", "0"], "timeout is 0.0"),
    ],
)
def test_failures_exit_1_with_one_error_and_no_traceback(root, capsys, arguments, text):
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert text in captured.err


def test_failed_download_exits_1(root, capsys):
    with served(["status 500"]) as server:
        assert main(["fetch", "mini", "--mirror", server.url]) == 1
    assert "HTTP 500" in capsys.readouterr().err


def test_wrong_xai_data_exits_1(root, monkeypatch, capsys):
    monkeypatch.setenv("XAI_DATA", str(root / "gone"))
    for command in (["list"], ["verify"], ["fetch", "mini"]):
        assert main(command) == 1
        assert "is not a folder" in capsys.readouterr().err


def test_interrupt_exits_130(root, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("xai_utils.data.store.fetch", interrupted)
    assert main(["fetch", "mini"]) == 130
    assert "goes on there" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["fetch"], ["fetsch", "mini"], ["fetch", "mini", "--timeout", "soon"]])
def test_wrong_usage_exits_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: python -m xai_utils.data" in capsys.readouterr().err


def test_as_a_module_it_exits_with_the_code(root, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["data", "verify", "later"])
    monkeypatch.delitem(sys.modules, "xai_utils.data.__main__")
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("xai_utils.data", run_name="__main__")
    assert stop.value.code == 1
    assert capsys.readouterr().out == "later: missing\n"
