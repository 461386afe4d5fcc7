"""Downloads, against a server on this machine that also truncates, stalls, lies and refuses."""

import errno
import hashlib
import os
import shutil
import subprocess
from collections import namedtuple
from urllib.parse import urljoin

import pytest
import requests
from data_server import DataServer, tree

from xai_utils.data import downloads

BODY = bytes(range(256)) * 60
SHA256 = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)


def get(server, path, *, known_hash=SHA256, name="one.gz", timeout=5.0):
    urls = [server] if isinstance(server, str) else [f"{server.url}/deep/{name}"]
    downloads.download(urls, path / name, size=len(BODY), known_hash=known_hash, timeout=timeout)


@pytest.mark.parametrize("script", [["ok"], ["chunked"], ["truncate 1000"], ["wrong"], ["status 500"], ["stall 700"]])
def test_a_file_arrives_whole_if_need_be_at_the_second_try(tmp_path, script):
    with DataServer({"one.gz": BODY}, script) as server:
        get(server, tmp_path, timeout=0.3)
        assert len(server.log) == (1 if script[0] in ("ok", "chunked") else 2)
    assert tree(tmp_path) == {"one.gz": BODY}


@pytest.mark.parametrize("known_hash", [SHA256, f"md5:{hashlib.md5(BODY).hexdigest()}", ""])
def test_a_file_that_is_there_is_not_loaded_again(tmp_path, known_hash):
    with DataServer({"one.gz": BODY}) as server:
        get(server, tmp_path, known_hash=known_hash)
        get(server, tmp_path, known_hash=known_hash)
        assert server.log == ["one.gz"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("wrong", "does not match the known hash"),
        ("truncate 1000", "the connection broke before the end"),
        ("stall 1000", "no byte for 0.3 s"),
        ("status 404", "HTTP 404 Not Found"),
        ("redirect http://192.0.2.1/one.gz", "redirect to http://192.0.2.1/one.gz refused: not https"),
        ("redirect file:///etc/passwd", "redirect to file:///etc/passwd refused: not https"),
        ("redirect ftp://127.0.0.1/one.gz", "refused: not https"),
    ],
)
def test_bad_answers_leave_nothing(tmp_path, script, reason):
    with DataServer({"one.gz": BODY}, [script] * 2) as server:
        with pytest.raises(ConnectionError, match=rf"one\.gz could not be loaded from {server.url}.*{reason}"):
            get(server, tmp_path, timeout=0.3)
        assert len(server.log) == 2
    assert tree(tmp_path) == {}


def test_an_answer_that_does_not_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "SLACK", 100_000)
    text = "more than 130720 bytes came; stopped"
    with DataServer({"one.gz": BODY}, ["endless"] * 2) as server, pytest.raises(ConnectionError, match=text):
        get(server, tmp_path, known_hash="")
    assert tree(tmp_path) == {}


def test_no_server_at_all(tmp_path):
    with DataServer({}) as server:
        url = server.url
    with pytest.raises(ConnectionError, match="the host cannot be reached"):
        get(f"{url}/one.gz", tmp_path)


def test_addresses_are_tried_in_turn(tmp_path):
    with DataServer({}) as first, DataServer({"one.gz": BODY}) as second:
        urls = [f"{first.url}/one.gz", f"{second.url}/one.gz"]
        downloads.download(urls, tmp_path / "one.gz", size=1, known_hash=SHA256, timeout=5)
        assert (first.log, second.log) == (["one.gz"] * 2, ["one.gz"])
    assert tree(tmp_path) == {"one.gz": BODY}


@pytest.mark.parametrize(
    "goal",
    [
        *(
            "http://[bad",
            "https://a..b/x",
            "https://",
            "//",
            "",
            "\x00",
            "https://exa mple.org/",
            "doi:10.1/x",
            "/same",
        ),
        *("https://localhost:99999/x", "http://127.0.0.1:abc/", "mailto:x@y", "http://192.0.2.1/x", "data:,x"),
    ],
)
def test_after_a_bad_redirect_the_next_address_is_tried(tmp_path, goal):
    with DataServer({}, [f"redirect {goal}"] * 2) as first, DataServer({"one.gz": BODY}) as second:
        urls = [f"{first.url}/one.gz", f"{second.url}/one.gz"]
        downloads.download(urls, tmp_path / "one.gz", size=1, known_hash=SHA256, timeout=5)
    assert tree(tmp_path) == {"one.gz": BODY}


@pytest.mark.parametrize("kind", ["drip", "drip-head"])
def test_a_server_that_drips_is_given_up_and_the_next_address_is_tried(tmp_path, kind):
    with DataServer({"one.gz": BODY}, [f"{kind} 0.05"] * 2) as slow, DataServer({"one.gz": BODY}) as good:
        urls = [f"{slow.url}/one.gz", f"{good.url}/one.gz"]
        options = {"size": len(BODY), "known_hash": SHA256, "timeout": 5.0, "limit": 0.5}
        downloads.download(urls, tmp_path / "one.gz", **options)
        assert (slow.log, good.log) == (["one.gz"], ["one.gz"])
        with pytest.raises(ConnectionError, match=r"other\.gz could not be loaded from .*: not done within 0.5 s"):
            downloads.download(urls[:1], tmp_path / "other.gz", **options)
    assert (tmp_path / "one.gz").read_bytes() == BODY
    assert not (tmp_path / "other.gz").exists()


def test_redirect_within_the_rules_is_followed(tmp_path):
    with DataServer({"one.gz": BODY}) as goal, DataServer({}, [f"redirect {goal.url}/x/one.gz"]) as server:
        get(server, tmp_path)
        assert goal.log == ["one.gz"]
    assert tree(tmp_path) == {"one.gz": BODY}


@pytest.mark.parametrize(
    "url",
    ["http://example.org/mnist", "ftp://127.0.0.1/x", "file:///tmp", "example.org", "http://127.0.0.1.example.org/"],
)
def test_unsafe_addresses_are_refused(tmp_path, url):
    with pytest.raises(ValueError, match="refused: data come by https"):
        get(url, tmp_path)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_timeout_must_be_positive(tmp_path, timeout):
    with pytest.raises(ValueError, match=f"timeout is {timeout!r}, expected seconds above 0"):
        get("https://example.org/one.gz", tmp_path, timeout=timeout)


def test_proxy_settings_do_not_catch_this_machine(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with DataServer({"one.gz": BODY}) as goal, DataServer({}, [f"redirect {goal.url}/one.gz"]) as server:
        get(server, tmp_path)
    assert tree(tmp_path) == {"one.gz": BODY}


def test_disk_without_room(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 100))
    with DataServer({"one.gz": BODY}) as server:
        with pytest.raises(OSError, match=r"one\.gz could not be written: 15360 bytes needed, 100 free") as error:
            get(server, tmp_path)
        assert server.log == []
    assert error.value.errno == errno.ENOSPC


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full")
def test_disk_that_fills_up_while_writing(tmp_path, monkeypatch):
    def open_full(path, mode="r", *rest):
        return open("/dev/full" if "w" in mode else path, mode, *rest)

    monkeypatch.setattr(downloads, "open", open_full, raising=False)
    text = r"one\.gz could not be written: No space left on device"
    with DataServer({"one.gz": BODY}) as server, pytest.raises(OSError, match=text) as error:
        get(server, tmp_path)
    assert error.value.errno == errno.ENOSPC
    assert tree(tmp_path) == {}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command, to make a certificate")
def test_https_needs_a_trusted_certificate(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *request.split(), *extra], check=True, capture_output=True)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with DataServer({"one.gz": BODY}, certificate=(certificate, key)) as server:
        with pytest.raises(ConnectionError, match="its certificate is not trusted"):
            get(server, tmp_path / "goal")
        assert tree(tmp_path / "goal") == {}
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        get(server, tmp_path / "goal")
        assert tree(tmp_path / "goal") == {"one.gz": BODY}
        with DataServer({"one.gz": BODY}) as plain:  # this machine, but not https
            server.script.extend([f"redirect {plain.url}/one.gz"] * 2)
            with pytest.raises(ConnectionError, match=f"redirect to {plain.url}/one.gz refused: not https"):
                get(server, tmp_path / "other")
            assert plain.log == []
    assert tree(tmp_path / "other") == {}


# --- files that a DOI names


def answering(pages, real):
    """A stand-in for requests.get: pages by address, everything on this machine for real."""

    class Page:
        def __init__(self, url, body):
            self.url, self.status_code, self._body = url, 200, body

        def raise_for_status(self):
            pass

        def json(self):
            return self._body

    def get(url, **options):
        assert "hooks" in options
        if url.startswith("http://127.0.0.1"):
            return real(url, **options)
        return Page(pages[url][0], pages[url][1])

    return get


def figshare(server, files, md5):
    listed = [{"name": n, "download_url": urljoin(f"{server.url}/", n), "computed_md5": md5} for n in files]
    api = "https://api.figshare.com/v2/articles"
    return {
        "https://doi.org/10.6084/m9.figshare.1.v1": ("https://figshare.com/articles/dataset/1/1", None),
        f"{api}?doi=10.6084/m9.figshare.1.v1": (api, [{"id": 1}]),
        f"{api}/1/versions/1": (api, {"files": listed}),
    }


@pytest.mark.parametrize("names", [["one.gz"], ["other.gz"], ["one.gz", "two.gz"]])
def test_a_doi_gives_the_address_and_the_checksum(tmp_path, monkeypatch, names):
    with DataServer(dict.fromkeys(names, BODY)) as server:
        pages = figshare(server, names, hashlib.md5(BODY).hexdigest())
        monkeypatch.setattr(requests, "get", answering(pages, requests.get))
        get("doi:10.6084/m9.figshare.1.v1/one.gz", tmp_path, known_hash="")
        assert server.log == [names[0]]
    assert tree(tmp_path) == {"one.gz": BODY}


@pytest.mark.parametrize(
    ("names", "md5", "reason"),
    [
        (["one.gz"], "0" * 32, "does not match the known hash"),
        (["ftp://example.org/one.gz"], "0" * 32, "the repository names .*, which is refused: not https"),
        (["two.gz", "three.gz"], hashlib.md5(BODY).hexdigest(), "File 'one.gz' not found in data archive"),
        ([], "0" * 32, "File 'one.gz' not found in data archive"),
    ],
)
def test_a_doi_whose_file_is_another_one(tmp_path, monkeypatch, names, md5, reason):
    with DataServer(dict.fromkeys(names, BODY)) as server:
        monkeypatch.setattr(requests, "get", answering(figshare(server, names, md5), requests.get))
        with pytest.raises(ConnectionError, match=reason):
            get("doi:10.6084/m9.figshare.1.v1/one.gz", tmp_path, known_hash="")
    assert tree(tmp_path) == {}
