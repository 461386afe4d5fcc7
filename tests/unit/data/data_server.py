"""A web server on this machine that can be told to misbehave, for the tests of xai_utils.data."""

import hashlib
import ssl
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

PATIENCE = 20  # seconds after which a waiting test gives up


class DataServer:
    """Serves `files` (name -> bytes). Each request takes the next entry of `script`; "ok" when it is used up.

    ok | no-range (whole file, whatever was asked) | other-range (the same, but as a part from 0 on) | truncate N |
    stall N (N bytes, then silence) | hang (no header) |
    wrong (one byte changed) | long (bytes too many) | gate (waits for `open_gate`) | status CODE | redirect URL
    """

    def __init__(self, files, script=(), certificate=None):
        self.files, self.script = files, deque(script)
        self.log = []  # (name, Range header or None)
        self.sent = threading.Event()  # set when a stalling or gated answer has sent what it will send for now
        self.open_gate = threading.Event()
        self.closing = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
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
        name, asked = request.path.rsplit("/", 1)[1], request.headers.get("Range")
        self.log.append((name, asked))
        kind, _, value = (self.script.popleft() if self.script else "ok").partition(" ")
        body = self.files.get(name)
        if kind == "hang":
            self.sent.set()
            self.closing.wait(PATIENCE)
            return
        if kind == "redirect":
            request.send_response(302)
            request.send_header("Location", value)
            request.end_headers()
            return
        if kind == "status" or body is None:
            request.send_response(int(value or 404))
            request.end_headers()
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and "-range" not in kind else 0
        if start >= len(body):
            request.send_response(416)
            request.end_headers()
            return
        rest = body[start:]
        if kind == "wrong":
            rest = bytes([rest[0] ^ 1]) + rest[1:]
        if kind == "long":
            rest += b"more"
        request.send_response(206 if start or kind == "other-range" else 200)
        if start or kind == "other-range":
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Length", str(len(rest)))
        request.end_headers()
        if kind == "gate":
            self.sent.set()
            self.open_gate.wait(PATIENCE)
        request.wfile.write(rest[: int(value)] if kind in ("truncate", "stall") else rest)
        request.wfile.flush()
        if kind == "stall":
            self.sent.set()
            self.closing.wait(PATIENCE)


def described(path, body):
    """The registry's entry of one file."""
    return {"path": path, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def write_registry(root, sets):
    """Write root/data/registry.yaml; sets: name -> (recipe, origin URLs, {path: bytes})."""
    entries = {}
    for name, (recipe, urls, files) in sets.items():
        listed = [described(path, body) for path, body in files.items()]
        texts = {"title": f"set {name}", "licence": "MIT", "source": "s", "citation": "c", "origin_tried": False}
        origin = {"origin_urls": list(urls), "origin_files": listed if recipe == "direct" else []}
        entries[name] = {**texts, "recipe": recipe, **origin, "files": listed}
    (root / "data").mkdir(parents=True, exist_ok=True)
    (root / "data" / "registry.yaml").write_text(yaml.safe_dump(entries))


def tree(folder):
    """Every file below a folder with its bytes, lock files left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
