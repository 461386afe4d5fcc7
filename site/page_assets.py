"""Sphinx extension: scripts and styles that one page needs and no other; the other language's address of a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

STATIC = Path(__file__).resolve().parent / "_static"


def _add(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    up = "../" * pagename.count("/")
    here = app.config.language
    context["languages"] = {"en": f"{up}{'../' * (here == 'ja')}{pagename}.html", "ja": f"{up}ja/{pagename}.html"}
    context["languages"][here] = f"{pagename.rpartition('/')[2]}.html"
    if pagename == "bench":
        app.add_css_file("bench.css")
        for name in ("bench_data.js", "bench.js"):
            app.add_js_file(name, defer="defer")
    if pagename.startswith("explorables/"):
        name = pagename.partition("/")[2]
        root = f"{up}{'../' * (here == 'ja')}_static/explorables/"
        found = Path(app.config.html_static_path[-1]) / "explorables"
        tags = [f'<link rel="stylesheet" href="{root}{f}">' for f in ("shared.css", f"{name}/style.css") if _has(found, f)]
        for file in ("shared.js", f"{name}/data.js", f"{name}/explorable.js"):
            if _has(found, file):
                tags.append(f'<script defer src="{root}{file}"></script>')
        context["metatags"] = context.get("metatags", "") + "\n".join(tags)


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file()


def setup(app: Sphinx) -> dict[str, bool]:
    """Runs when a page is written."""
    app.connect("html-page-context", _add, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
