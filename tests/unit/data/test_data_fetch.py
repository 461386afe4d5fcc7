"""Downloads, against a server on this machine that also truncates, stalls, lies and refuses."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple

import pytest
from data_server import PATIENCE, DataServer, tree, write_registry

from xai_utils.data import store

BODY = bytes(range(256)) * 60
OTHER = b"labels" * 500
NAMES = {"one.gz": BODY, "two.gz": OTHER}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository of its own with the sets `mini` (two files), `later` and `inside`."""
    monkeypatch.setenv("XAI_ROOT", str(tmp_path / "repo"))
    monkeypatch.delenv("XAI_DATA", raising=False)
    files = {f"MINI/raw/{name}": body for name, body in NAMES.items()}
    origins = ["http://127.0.0.1:9/unused"]
    sets = {
        "mini": ("direct", origins, files),
        "later": ("later", [], {"later.zip": b"zip"}),
        "inside": ("embedded", [], {}),
    }
    write_registry(tmp_path / "repo", sets)
    return tmp_path / "repo"


def downloads(root):
    return {name: body for name, body in tree(root / "data").items() if name != "registry.yaml"}


def fetch(server, lines=None, **options):
    say = (lambda text: None) if lines is None else lines.append
    return store.fetch("mini", mirror=server.url, say=say, **{"timeout": 5.0, **options})


WHOLE = {"MINI/raw/one.gz": BODY, "MINI/raw/two.gz": OTHER}


def test_fetch_brings_the_registered_files_once(root):
    lines = []
    with DataServer(NAMES) as server:
        paths = fetch(server, lines)
        assert [path.relative_to(root / "data").as_posix() for path in paths] == list(WHOLE)
        assert downloads(root) == WHOLE
        assert fetch(server, lines) == paths
        assert server.log == [("one.gz", None), ("two.gz", None)]
    assert "already there (origin" in lines[-1]
    assert store.locate("mini")[1]["variant"] == "origin"


def test_a_file_that_is_there_already_is_not_fetched_again(root):
    (root / "data/MINI/raw").mkdir(parents=True)
    (root / "data/MINI/raw/one.gz").write_bytes(BODY)
    with DataServer(NAMES) as server:
        fetch(server)
        assert server.log == [("two.gz", None)]


def test_truncated_answer_is_continued_at_the_same_mirror(root):
    with DataServer(NAMES, ["truncate 1000"]) as server:
        fetch(server)
        assert server.log == [("one.gz", None), ("one.gz", "bytes=1000-"), ("two.gz", None)]
    assert downloads(root) == WHOLE


def test_always_truncated_leaves_a_part_and_the_next_fetch_goes_on(root):
    with DataServer(NAMES, ["truncate 1000", "truncate 500"]) as server:
        with pytest.raises(ConnectionError, match=r"(?s)truncated: 1500 of 15360 bytes.*1500 bytes are kept") as error:
            fetch(server)
        assert server.url in str(error.value)
        assert "XAI_DATA" in str(error.value)
        assert downloads(root) == {"MINI/raw/one.gz.part": BODY[:1500]}
        fetch(server)
        assert server.log[2] == ("one.gz", "bytes=1500-")
    assert downloads(root) == WHOLE


def test_stalled_connection_ends_by_the_timeout_and_is_continued(root):
    with DataServer(NAMES, ["stall 700", "stall 300"]) as server:
        with pytest.raises(ConnectionError, match=r"stalled: no byte for 0.2 s, 1000 of 15360 received"):
            fetch(server, timeout=0.2)
        assert downloads(root) == {"MINI/raw/one.gz.part": BODY[:1000]}
        fetch(server)
    assert downloads(root) == WHOLE


def test_server_that_never_answers(root):
    with DataServer(NAMES, ["hang"]) as server, pytest.raises(ConnectionError, match="no connection: timed out"):
        fetch(server, timeout=0.2)
    assert downloads(root) == {}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("wrong", "wrong bytes: sha256 [0-9a-f]{64}, expected [0-9a-f]{64}"),
        ("long", "wrong bytes: more than the expected 15360"),
        ("status 404", "HTTP 404"),
        ("status 500", "HTTP 500"),
        ("redirect http://192.0.2.1/one.gz", "redirect to http://192.0.2.1/one.gz refused"),
        ("redirect file:///etc/passwd", "HTTP 302 .*file:///etc/passwd.*not allowed"),
    ],
)
def test_bad_answers_leave_nothing(root, script, reason):
    with DataServer(NAMES, [script]) as server, pytest.raises(ConnectionError, match=reason):
        fetch(server)
    assert downloads(root) == {}


def test_no_server_at_all(root):
    with DataServer(NAMES) as server:
        url = server.url
    with pytest.raises(ConnectionError, match="no connection"):
        store.fetch("mini", mirror=url, say=lambda text: None)
    assert downloads(root) == {}


def test_redirect_within_the_rules_is_followed(root):
    with DataServer(NAMES) as goal, DataServer(NAMES, [f"redirect {goal.url}/x/one.gz"]) as server:
        fetch(server)
        assert goal.log == [("one.gz", None)]
    assert downloads(root) == WHOLE


def test_mirrors_are_tried_in_turn_and_continue_each_other(root):
    files = {f"MINI/raw/{name}": body for name, body in NAMES.items()}
    with DataServer(NAMES, ["status 500", "wrong"]) as first, DataServer(NAMES, ["truncate 9", "truncate 1"]) as second:
        with DataServer(NAMES) as third:
            urls = [first.url, second.url + "/deep/", third.url]
            write_registry(root, {"mini": ("direct", urls, files)})
            store.fetch("mini", say=lambda text: None, timeout=5.0)
            assert third.log == [("one.gz", "bytes=10-")]
        assert [name for name, _ in first.log] == ["one.gz", "two.gz"]
        assert second.log == [("one.gz", None), ("one.gz", "bytes=9-"), ("two.gz", None)]
    assert downloads(root) == WHOLE


@pytest.mark.parametrize("answer", ["no-range", "other-range"])
def test_server_that_sends_another_range_than_asked(root, answer):
    with DataServer(NAMES, ["truncate 1000", answer]) as server:
        fetch(server)
        assert server.log == [("one.gz", None), ("one.gz", "bytes=1000-"), ("two.gz", None)]
    assert downloads(root) == WHOLE


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * len(BODY), b"x" * (len(BODY) + 5)])
def test_part_of_other_bytes_is_thrown_away_and_fetched_anew(root, stale):
    (root / "data/MINI/raw").mkdir(parents=True)
    (root / "data/MINI/raw/one.gz.part").write_bytes(stale)
    with DataServer(NAMES) as server:
        fetch(server)
    assert downloads(root) == WHOLE


def test_complete_part_is_taken_without_a_request(root):
    (root / "data/MINI/raw").mkdir(parents=True)
    (root / "data/MINI/raw/one.gz.part").write_bytes(BODY)
    with DataServer(NAMES) as server:
        fetch(server)
        assert server.log == [("two.gz", None)]
    assert downloads(root) == WHOLE


def test_range_refused_starts_anew(root):
    (root / "data/MINI/raw").mkdir(parents=True)
    (root / "data/MINI/raw/one.gz.part").write_bytes(BODY[:100])
    with DataServer(NAMES, ["status 416"]) as server:
        fetch(server)
        assert server.log[:2] == [("one.gz", "bytes=100-"), ("one.gz", None)]
    assert downloads(root) == WHOLE


@pytest.mark.parametrize("damaged", [BODY[:-1], b"\1" + BODY[1:]])
def test_damaged_file_is_moved_aside_and_fetched_again(root, damaged):
    lines = []
    with DataServer(NAMES) as server:
        fetch(server)
        for n in (1, 2):
            (root / "data/MINI/raw/one.gz").write_bytes(damaged)
            os.utime(root / "data/MINI/raw/one.gz", (n, n))
            fetch(server, lines)
            assert any(f"one.gz.corrupt-{n}" in line and "damaged" in line for line in lines)
    aside = {f"MINI/raw/one.gz.corrupt-{n}": damaged for n in (1, 2)}
    assert downloads(root) == {**WHOLE, **aside}


def test_disk_without_room(root, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 100))
    with DataServer(NAMES) as server:
        with pytest.raises(
            OSError, match=r"one\.gz\.part could not be written: No space left.*15360 bytes needed"
        ) as error:
            fetch(server)
        assert error.value.errno == errno.ENOSPC
        assert server.log == []
    assert downloads(root) == {}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full")
def test_disk_that_fills_up_while_writing(root):
    (root / "data/MINI/raw").mkdir(parents=True)
    (root / "data/MINI/raw/one.gz.part").symlink_to("/dev/full")
    with DataServer(NAMES) as server, pytest.raises(OSError, match=r"one\.gz\.part could not be written") as error:
        fetch(server)
    assert error.value.errno == errno.ENOSPC
    assert not (root / "data/MINI/raw/one.gz").exists()


def test_folder_that_cannot_be_made(root):
    (root / "data/MINI").write_text("a file where a folder must be")
    with DataServer(NAMES) as server, pytest.raises(OSError, match="MINI"):
        fetch(server)
    assert downloads(root) == {"MINI": b"a file where a folder must be"}


@pytest.mark.parametrize(
    "url",
    ["http://example.org/mnist", "ftp://127.0.0.1/x", "file:///tmp", "example.org", "http://127.0.0.1.example.org/"],
)
def test_unsafe_mirrors_are_refused(root, url):
    with pytest.raises(ValueError, match="refused: data come by https"):
        store.fetch("mini", mirror=url)
    assert downloads(root) == {}


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_timeout_must_be_positive(root, timeout):
    with pytest.raises(ValueError, match="timeout is"):
        store.fetch("mini", timeout=timeout)


def test_proxy_settings_do_not_catch_this_machine(root, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with DataServer(NAMES) as server:
        fetch(server)
    assert downloads(root) == WHOLE


def test_sets_without_a_recipe_say_so(root):
    with pytest.raises(NotImplementedError, match=r"comes with the paper that uses the set.*later\.zip.*XAI_DATA"):
        store.fetch("later")
    lines = []
    assert store.fetch("inside", say=lines.append) == []
    assert "embedded" in lines[0]
    with pytest.raises(ValueError, match=r"unknown data set 'minni'. Did you mean 'mini'"):
        store.fetch("minni")


def test_prepared_copy_is_enough_and_stays_untouched(root, tmp_path, monkeypatch):
    prepared = tmp_path / "prepared"
    (prepared / "MINI/raw").mkdir(parents=True)
    for name, body in NAMES.items():
        (prepared / "MINI/raw" / name).write_bytes(body)
    monkeypatch.setenv("XAI_DATA", str(prepared))
    before, lines = tree(prepared), []
    with DataServer(NAMES) as server:
        fetch(server, lines)
        assert server.log == []
        assert "already there (prepared" in lines[-1]
        (prepared / "MINI/raw/one.gz").write_bytes(BODY[:50])
        with pytest.raises(ValueError, match=r"one\.gz is damaged: it has 50 bytes, expected 15360.*replace it"):
            fetch(server)
        (prepared / "MINI/raw/one.gz").unlink()
        fetch(server)  # an incomplete copy: the whole set comes into data/
    assert before == WHOLE
    assert tree(prepared) == {"MINI/raw/two.gz": OTHER}
    assert downloads(root) == WHOLE


def test_fetch_never_writes_into_xai_data_even_if_it_is_the_data_folder(root, monkeypatch):
    monkeypatch.setenv("XAI_DATA", "data")  # relative: from the repository's root
    with DataServer(NAMES) as server, pytest.raises(ValueError, match="never written to"):
        fetch(server)
    assert downloads(root) == {}


def start_process(root, server):
    command = [sys.executable, "-m", "xai_utils.data", "fetch", "mini", "--mirror", server.url]
    environment = {**os.environ, "XAI_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_killed_in_the_middle_leaves_a_part_and_the_next_fetch_resumes(root):
    with DataServer(NAMES, ["stall 1000"]) as server:
        process = start_process(root, server)
        try:
            assert server.sent.wait(PATIENCE), process.communicate(timeout=1)
            part = root / "data/MINI/raw/one.gz.part"
            deadline = time.monotonic() + PATIENCE / 2  # before the server lets go, which would flush the file
            while not (part.exists() and part.stat().st_size == 1000):
                assert time.monotonic() < deadline, "the bytes that were sent never reached the disk"
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert downloads(root) == {"MINI/raw/one.gz.part": BODY[:1000]}
        fetch(server)
        assert server.log[1] == ("one.gz", "bytes=1000-")
    assert downloads(root) == WHOLE


@pytest.mark.parametrize("first", ["thread", "process"])
def test_two_fetches_at_once_download_once(root, first):
    lines, errors = [], []

    with DataServer(NAMES, ["gate"]) as server:

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
            process = start_process(root, server)
        else:
            worker = threading.Thread(target=in_thread)
            worker.start()
        assert server.sent.wait(PATIENCE)
        store.fetch("mini", mirror=server.url, say=second_says, timeout=PATIENCE)
        if first == "process":
            output, _ = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, output
        else:
            worker.join()
        assert server.log == [("one.gz", None), ("two.gz", None)]
    assert errors == []
    assert "another fetch is running" in lines[0]
    assert downloads(root) == WHOLE


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command, to make a certificate")
def test_https_needs_a_trusted_certificate(root, tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *request.split(), *extra], check=True, capture_output=True)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with DataServer(NAMES, certificate=(certificate, key)) as server:
        with pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch(server)
        assert downloads(root) == {}
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        fetch(server)
    assert downloads(root) == WHOLE
