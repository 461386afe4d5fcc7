"""Chromium over the built site: a server on this machine, and a page that notes every error and request."""

import contextlib
import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HTML = Path(os.environ.get("SITE_HTML", ROOT / "build" / "site" / "html"))
AXE = ROOT / "build" / "site" / "npm" / "node_modules" / "axe-core" / "axe.min.js"
# a measurement, not a check: another process on the machine must not turn it red
idle_machine = pytest.mark.skipif(
    not os.environ.get("SITE_SPEED"), reason="on an idle machine: SITE_SPEED=1 make test-site"
)
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def html():
    """Folder of the built site."""
    if not (HTML / "index.html").is_file():
        pytest.fail(f"no site in {HTML}: run make site")
    return HTML


@pytest.fixture(scope="session")
def site(html):
    """Address of a plain static server over the site."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(html)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium."""
    if not CHROMIUM:
        pytest.skip("there is no Chromium on this machine, so no page was opened: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Seen:
    """What a page asked for and complained of."""

    def __init__(self, page, site):
        self.requests, self.problems = [], []
        page.on("console", lambda said: said.type == "error" and self.problems.append(f"console: {said.text}"))
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        page.on("response", lambda got: got.status >= 400 and self.problems.append(f"{got.status}: {got.url}"))
        page.on("request", lambda request: self._asked(request.url, site))

    def _asked(self, url, site):
        if url.startswith(site):
            self.requests.append(url.removeprefix(site).partition("?")[0].partition("#")[0])
        elif not url.startswith(("data:", "blob:", "about:", "file:")):
            self.problems.append(f"another host: {url}")


@pytest.fixture(scope="session")
def opened(browser, site):
    """A context manager: a fresh page, and what it has `seen`; nothing may have gone wrong in it."""

    @contextlib.contextmanager
    def open_one(width=1280, height=900, scheme="light", **more):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce", **more
        )
        page = context.new_page()
        page.seen = Seen(page, site)
        try:
            yield page
            assert not page.seen.problems
        finally:
            context.close()

    return open_one


@pytest.fixture
def page(opened):
    """A fresh desktop page."""
    with opened() as one:
        yield one


def serious(page, only=None):
    """Axe's violations of impact serious or critical, a line each."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    options = {"resultTypes": ["violations"]} | ({"runOnly": {"type": "rule", "values": only}} if only else {})
    found = page.evaluate("options => axe.run(document, options)", options)["violations"]
    return [
        f"{violation['id']}: {node['target']} {node.get('failureSummary', '')[:160]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"][:3]
    ]


@pytest.fixture(scope="session")
def axe():
    """`serious`, as a fixture."""
    return serious
