"""Sphinx settings of the reading site; site/build.py writes the sources and calls Sphinx once a language."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

project = "Five papers on explaining image models, reproduced"
author = "The authors of the suite"
copyright = "MIT licence"
language = os.environ.get("SITE_LANGUAGE", "en")
html_title = {"en": "Five papers, reproduced", "ja": "五つの論文の再現"}[language]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "sphinx_exercise",
    "sphinx_togglebutton",
    "sphinx_copybutton",
    "docstrings",
    "page_assets",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_inline", "attrs_block"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # the default loads two scripts from other hosts
nb_merge_streams = True
templates_path = [str(HERE / "_templates")]
exclude_patterns = []
locale_dirs = [os.environ.get("SITE_LOCALE", str(HERE / "locale"))]
gettext_compact = "site"
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]

# API pages
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_use_type_comments = False
napoleon_google_docstring = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
add_module_names = False
default_role = "code"

# one file for formulas, loaded only where there are some
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {
    "svg": {"fontCache": "global"},
    "startup": {"typeset": True},
    "options": {
        "enableMenu": False,  # the menu would load further files
        "processHtmlClass": "tex2jax_process|mathjax_process|math|output_area",
        "ignoreHtmlClass": "tex2jax_ignore|mathjax_ignore|document",
    },
}
myst_update_mathjax = False

html_theme = "sphinx_book_theme"
html_static_path = [str(HERE / "_static"), os.environ.get("SITE_ASSETS", "")]
html_static_path = [folder for folder in html_static_path if folder]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_favicon = str(HERE / "_static" / "favicon.svg")
html_copy_source = False  # a folded solution would stand open there
html_show_sourcelink = False
html_use_index = False
html_domain_indices = False
numfig = False
html_show_sphinx = False
html_last_updated_fmt = None
html_search_language = language
html_search_options = {"type": "japanese.Splitter"} if language == "ja" else {}
html_context = {"default_mode": "auto"}
_repository = (HERE.parent / "docs" / "repository.txt").read_text(encoding="utf-8").strip()
html_theme_options = {
    "repository_url": _repository,
    "use_repository_button": bool(_repository),
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "home_page_in_toc": True,
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
    "article_header_start": ["toggle-primary-sidebar.html"],
    "article_header_end": ["languages.html", "article-header-buttons.html"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "footer_content_items": ["copyright.html"],
}
copybutton_prompt_text = ""
copybutton_exclude = ".linenos, .gp, .go"
