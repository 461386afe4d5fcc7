"""Sphinx extension: scripts and styles that one page needs and no other; the other language's address of a page."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


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
        tags = [f'<link rel="stylesheet" href="{root}{file}">' for file in ("shared.css", f"{name}/style.css")]
        scripts = ("shared.js", f"{name}/data.js", f"{name}/explorable.js")
        tags += [f'<script defer src="{root}{file}"></script>' for file in scripts]
        context["metatags"] = context.get("metatags", "") + "\n".join(tags)


def setup(app: Sphinx) -> dict[str, bool]:
    """Runs when a page is written."""
    app.connect("html-page-context", _add, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
