"""Every sentence of results/findings.yaml against the committed records: filled, true, and with its figure.

Cells of notebooks that show a finding are not compared by nbval, since they change with the records: this tests them.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from xai_utils.suite import alt_text, claims, findings, readme, shown

ROOT = Path(__file__).parents[3]
KNOWN, REPORTED = findings.load(ROOT / findings.FILE), claims.load(ROOT / "results/reported.yaml")
CLAIMS = [claim for paper in REPORTED.papers.values() for claim in paper.judged]
KANA = re.compile("[\u3040-\u30ff]")


@pytest.fixture(scope="module")
def source():
    return findings.Source(ROOT)


def answered(claim, source):
    """Whether a standard record of an arm that the claim's rule judges is committed."""
    stem = source.paper_of(claim)
    return any(source.records(stem, arm, claim) for arm in REPORTED.papers[stem].judged[claim].rule.arms)


def test_every_claim_that_standard_records_answer_has_a_finding_and_every_paper_a_summary(source):
    assert [claim for claim in CLAIMS if answered(claim, source)] == list(KNOWN.claims)
    assert list(KNOWN.papers) == list(REPORTED.papers)


@pytest.mark.parametrize("claim", KNOWN.claims)
def test_a_finding_is_true_and_filled_in_both_languages(claim, source):
    entry, stem = KNOWN.claims[claim], source.paper_of(claim)
    assert entry.arm in REPORTED.papers[stem].judged[claim].rule.arms
    english, japanese = (findings.tell(claim, entry, stem, language, source) for language in ("en", "ja"))
    assert len(english) == len(japanese) == len(entry.sentences)
    assert all(text.endswith((".", ").")) and "{" not in text and not KANA.search(text) for text in english)
    assert all(text.endswith("。") and "{" not in text and KANA.search(text) for text in japanese)
    assert len(english[0]) <= 300  # it stands in one line of the closing table


@pytest.mark.parametrize("stem", KNOWN.papers)
def test_a_summary_is_true_and_filled_in_both_languages(stem, source):
    assert re.search(r"\d", findings.summary(stem, "en", source))
    assert KANA.search(findings.summary(stem, "ja", source))


def test_the_finding_that_surprises_is_true_and_stands_in_the_readme():
    assert readme.surprise() in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("claim", [claim for claim, entry in KNOWN.claims.items() if entry.figure])
def test_the_figure_of_a_finding_is_committed_and_described(claim, source):
    entry = KNOWN.claims[claim]
    with Image.open(shown.figure_path(entry, source.paper_of(claim), source)) as image:
        assert min(image.size) > 200
    alt_text.attach(SimpleNamespace(), entry.figure.name, entry.figure.alt)  # refuses what says no more than the name


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_has_words_and_a_number_for_the_table_at_the_end(claim, source):
    stem = source.paper_of(claim)
    entry = REPORTED.papers[stem].judged[claim]
    assert 4 <= len(entry.words.split()) <= 14
    assert not re.search(r"[PX]\d\.|_", entry.words + entry.shown.says)  # no raw ids
    assert entry.shown.metric in [c.metric for c in entry.rule.conditions] or claim in KNOWN.claims
    if answered(claim, source):  # a rule is committed before its runs
        assert source.metrics(stem, KNOWN.claims[claim].arm)[entry.shown.metric].value is not None


def test_what_is_shown_in_notebooks_stays_small(source):
    for claim, entry in KNOWN.claims.items():
        if entry.figure:
            assert len(shown._picture(entry, source.paper_of(claim), source)) < 110_000, claim


def test_the_readme_has_at_most_1800_words():
    words = [word for word in (ROOT / "README.md").read_text(encoding="utf-8").split() if re.search(r"\w", word)]
    assert len(words) <= 1800
