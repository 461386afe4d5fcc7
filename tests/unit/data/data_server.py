"""A web server on this machine that can be told to misbehave, and registries for the tests of xai_utils.data."""

import hashlib
import ssl
import threading
import zipfile
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import yaml

from xai_utils.data import contents

PATIENCE = 20  # seconds after which a waiting test gives up


class DataServer:
    """Serves `files` (name -> bytes). Each request takes the next entry of `script`; "ok" when it is used up.

    ok | truncate N | stall N (N bytes, then silence) | wrong (one byte changed) | chunked (no length is said, as hosts
    do that pack on demand) | drip S (a byte every S seconds) | drip-head S (so the headers) | endless (twenty times as
    much) | gate (waits for `open_gate`) | status CODE | redirect URL
    """

    def __init__(self, files, script=(), certificate=None):
        self.files, self.script = files, deque(script)
        self.log = []  # names asked for
        self.sent = threading.Event()  # set when a stalling or gated answer has sent what it will send for now
        self.open_gate = threading.Event()
        self.closing = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.close_connection = True
                with suppress(ConnectionError):  # the client hangs up where too much comes
                    owner.answer(self)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.server.handle_error = lambda *arguments: None  # a refused handshake is what the test wants
            self.scheme = "https"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.closing.set()
        self.open_gate.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def answer(self, request):
        name = request.path.rsplit("/", 1)[1]
        self.log.append(name)
        kind, _, value = (self.script.popleft() if self.script else "ok").partition(" ")
        body = self.files.get(name)
        if kind == "drip-head":
            for byte in b"HTTP/1.1 200 OK\r\nX-More: " + b"x" * 10_000:
                request.wfile.write(bytes([byte]))
                if self.closing.wait(float(value)):
                    return
        if kind == "redirect" or kind == "status" or body is None:
            request.send_response(302 if kind == "redirect" else int(value or 404))
            request.send_header("Content-Length", "0")
            if kind == "redirect":
                request.send_header("Location", value)
            request.end_headers()
            return
        if kind == "wrong":
            body = bytes([body[0] ^ 1]) + body[1:]
        chunked = kind in ("chunked", "endless")
        request.send_response(200)
        request.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body)))))
        request.end_headers()
        if chunked:
            for start in range(0, len(body) * (20 if kind == "endless" else 1), 1000):
                piece = body[start % len(body) :][:1000]
                request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            request.wfile.write(b"0\r\n\r\n")
            return
        if kind == "gate":
            self.sent.set()
            self.open_gate.wait(PATIENCE)
        if kind == "drip":
            for byte in body:
                request.wfile.write(bytes([byte]))
                if self.closing.wait(float(value)):
                    return
        request.wfile.write(body[: int(value)] if kind in ("truncate", "stall") else body)
        request.wfile.flush()
        if kind == "stall":
            self.sent.set()
            self.closing.wait(PATIENCE)


def described(path, body):
    """The registry's entry of one file."""
    return {"path": path, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def write_registry(root, sets):
    """Write root/data/registry.yaml and the lists of contents; sets: name -> (recipe, origin URLs, {path: bytes}).

    A set that is built gets the URLs as they are; one that is loaded as it is gets them as folders of its files.
    """
    entries = {}
    for name, (recipe, urls, files) in sets.items():
        texts = {"title": f"set {name}", "licence": "MIT", "source": "s", "citation": "c", "recipe": recipe}
        listed = [described(path, body) for path, body in files.items()]
        origins = [{"urls": [url], "bytes": 1000} for url in urls]
        if recipe == "direct":
            origins = [
                {
                    "urls": [f"{url}/{file['path'].rpartition('/')[2]}" for url in urls],
                    "bytes": file["bytes"],
                    "hash": f"sha256:{file['sha256']}",
                }
                for file in listed
            ]
        if recipe == "build":
            for body in files.values():
                write_contents(root, name, body)
        entries[name] = {**texts, "origins": origins, "files": listed}
    (root / "data").mkdir(parents=True, exist_ok=True)
    (root / "data" / "registry.yaml").write_text(yaml.safe_dump(entries))


def write_contents(root, name, body, coded_again=""):
    """Write root/data/contents/<name>.csv for an archive; an empty list if the test has spoilt it."""
    folder = root / "data" / "contents"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        text = contents.listing(BytesIO(body), coded_again)
    except (zipfile.BadZipFile, OSError):  # no archive, or pictures in it that are none
        text = ",".join(contents.HEADER) + "\n"
    (folder / f"{name}.csv").write_text(text)


def tree(folder):
    """Every file below a folder with its bytes, lock files left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
