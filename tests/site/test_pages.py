"""Every page of the site, in both languages, at three sizes: nothing fails, asks elsewhere, or spills over."""

import functools
import gzip
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from conftest import HTML

PAGES = sorted(path.relative_to(HTML).as_posix() for path in HTML.rglob("*.html") if "_static" not in path.parts)
MAKE_DARK = "document.documentElement.dataset.theme = document.documentElement.dataset.mode = 'dark'"


@functools.cache
def weight(path):
    """Bytes that a server sends, text gzipped."""
    content = path.read_bytes()
    return len(content if path.suffix in {".png", ".woff2", ".wasm"} else gzip.compress(content, 6))


@pytest.mark.parametrize("name", PAGES)
def test_a_page(name, opened, site, html, axe):
    with opened() as page:
        page.goto(site + name, wait_until="load")
        page.evaluate("window.MathJax?.startup?.promise")
        formulas = page.locator(".math").count()
        assert page.locator("mjx-container").count() >= formulas
        assert page.locator("mjx-merror").count() == 0
        assert ("_static/mathjax/tex-svg.js" in page.seen.requests) == (formulas > 0)
        sent = sum(weight(html / (asked or "index.html")) for asked in dict.fromkeys(page.seen.requests))
        assert sent <= (1_000_000 if name in ("index.html", "ja/index.html") else 3_000_000)
        assert axe(page) == []
        page.evaluate(MAKE_DARK)
        page.wait_for_timeout(250)  # the theme fades
        assert axe(page, ["color-contrast"]) == []
        shoot(page, name, "dark")
        page.set_viewport_size({"width": 390, "height": 800})
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, f"{wide} pixels wide: {page.evaluate(WIDEST)}"
        shoot(page, name, "phone")
        assert page.locator("img:not([alt])").count() == 0


WIDEST = """[...document.querySelectorAll("body *")].filter(n => n.getBoundingClientRect().right > 391)
  .filter(n => !n.closest(".wide-table, pre, .text_html, mjx-container, .bd-sidebar-primary, .bd-sidebar-secondary"))
  .slice(0, 5).map(n => `${n.tagName}.${n.className}`)"""


def shoot(page, name, kind):
    """A screenshot for people, where $SITE_SCREENSHOTS says so."""
    if folder := os.environ.get("SITE_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name.replace('/', '_')}.{kind}.png")


class Links(HTMLParser):
    """Addresses and ids of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        self.links |= {given[name] for name in ("href", "src", "poster") if given.get(name)}


@pytest.fixture(scope="module")
def pages(html):
    return {name: Links((html / name).read_text(encoding="utf-8")) for name in PAGES}


def test_every_link_within_the_site_leads_somewhere(pages, html):
    lost = []
    for name, found in pages.items():
        for link in found.links:
            if re.match(r"[a-z]+:", link):
                continue
            address, fragment = urldefrag(link.partition("?")[0] if "#" not in link else link)
            target = (html / name).parent / unquote(address.partition("?")[0]) if address else html / name
            target = target.resolve()
            if target.is_dir():
                target /= "index.html"
            inside = target.relative_to(html.resolve()).as_posix() if target.is_file() else None
            if inside is None or (fragment and inside in pages and unquote(fragment) not in pages[inside].ids):
                lost.append(f"{name}: {link}")
    assert lost == []


@pytest.mark.parametrize("name", ["index.html", "ja/bench.html", "notebooks/02_moram_regression.html"])
def test_a_page_opens_as_a_file(name, page, html):
    page.goto((html / name).as_uri(), wait_until="load")
    page.evaluate("window.MathJax?.startup?.promise")
    assert page.locator("mjx-container").count() >= page.locator(".math").count()
    assert page.locator("img").evaluate_all("all => all.filter(i => i.complete && !i.naturalWidth).length") == 0
    if "bench" in name:
        page.locator("#bench-P2\\.4 summary").click()
        page.locator("#bench-P2\\.4 form button").click()
        assert page.locator("#bench-P2\\.4 .bench-now .verdict").count() == 2


def test_both_languages_have_the_same_pages_and_lead_to_each_other(pages):
    english = {name for name in PAGES if not name.startswith("ja/")}
    assert english == {name.removeprefix("ja/") for name in PAGES if name.startswith("ja/")}
    for name in english:
        up = "../" * name.count("/")
        assert f"{up}ja/{name}" in pages[name].links
        assert f"{up}../{name}" in pages[f"ja/{name}"].links


def test_the_site_is_small_and_holds_no_sources(html):
    files = [path for path in html.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40_000_000
    assert [path.name for path in files if path.suffix in {".ipynb", ".map", ".md", ".po", ".py"}] == []
    assert not list(html.rglob("_sources"))


@pytest.mark.parametrize(
    ("language", "word", "leads_to"),
    [
        ("ja/", "重心", "notebooks/01_id_cvae_morphing.html"),
        ("ja/", "顕著量マップ", "notebooks/02_moram_regression.html"),
        ("ja/", "MoRAM", "notebooks/02_moram_regression.html"),
        ("", "MoRAM", "notebooks/02_moram_regression.html"),
    ],
)
def test_the_search_finds(language, word, leads_to, page, site):
    page.goto(f"{site}{language}search.html?q={word}", wait_until="load")
    page.wait_for_selector("#search-results li a")
    page.wait_for_timeout(1500)  # results come one by one
    found = page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.getAttribute('href'))")
    assert any(leads_to in link for link in found), found
