"""What the site's sources say before a browser sees them: words, terms, docstrings."""

import importlib
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "site"))

import docstrings  # noqa: E402
import japanese  # noqa: E402
import papers  # noqa: E402
from words import Site, prose  # noqa: E402

from xai_utils.suite.findings import Source  # noqa: E402

TERMS = yaml.safe_load((ROOT / "site" / "glossary.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("entry", TERMS, ids=lambda entry: entry["en"])
def test_a_term_is_in_the_code_and_has_a_meaning_in_both_languages(entry):
    assert set(entry) == {"ja", "en", "symbol", "code", "means", "means_ja"}
    assert entry["means"].endswith(".")
    assert entry["means_ja"].endswith("。")
    if entry["code"]:
        module, _, name = entry["code"].rpartition(".")
        assert hasattr(importlib.import_module(f"xai_utils.{module}"), name)


def test_every_heading_of_a_notebook_has_its_japanese():
    assert papers.untranslated(Source()) == []


def test_learning_goals_and_claims_have_their_japanese():
    source = Source()
    say = Site("ja", ROOT, source).say
    claims = [entry for paper in source.reported.papers.values() for entry in paper.judged.values()]
    assert [entry.words for entry in claims if say(entry.words) == entry.words] == []
    goals = []
    for path in sorted((ROOT / "notebooks").glob("0[125]_*.ipynb")):
        text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells[:2])
        goals += [line[3:].strip() for line in text.splitlines() if line[:3] in ("1. ", "2. ", "3. ", "4. ")]
    assert len(goals) == 8
    assert [goal for goal in goals if say(goal) == goal] == []


def test_the_japanese_index_keeps_terms_whole():
    words = japanese.Splitter({}).split("クラスの重心と顕著量マップを、MoRAMで比べる。")
    assert {"重心", "顕著量マップ", "MoRAM"} <= set(words)


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("Saliency Σ_k |w_k| A^k.", r"Saliency Σ_k \|w_k\| A^k."),
        ("`attribute(x)` and ``y``: 2 * 3", r"``attribute(x)`` and ``y``: 2 \* 3"),
        ("a name_ alone", r"a name\_ alone"),
    ],
)
def test_a_docstring_is_plain_text_with_code(line, written):
    assert docstrings.plain(line) == written


def test_prose_keeps_what_markdown_would_read():
    assert prose("a*b_c |R| <x> -0.5") == r"a\*b\_c \|R\| &lt;x&gt; −0.5"


def test_only_figures_that_differ_from_the_page_are_shown_beside_it(tmp_path):
    site = Site("en", tmp_path, Source())
    papers.write(site, "01_id_cvae_morphing")
    cells = nbformat.read(tmp_path / "notebooks" / "01_id_cvae_morphing.ipynb", as_version=4).cells
    shown = "\n".join(cell.source for cell in cells if ":::{figure}" in cell.source)
    assert "/pictures/1_fig2_morph.png" in shown
    assert "1_fig3_structure.png" not in shown  # the same drawing
    assert "The same in the standard run: mnist, arm main, seed 0 of 3." in shown
    assert shown.count(":alt:") == shown.count(":::{figure}")
    anchors = [cell.source for cell in cells if 'class="claim-anchor"' in cell.source]
    assert sum('id="measured-P1.3"' in text for text in anchors) == 1
    assert sum('id="finding-P1.4"' in text for text in anchors) == 1
    assert not any("widget-view" in str(cell.get("outputs")) for cell in cells)
