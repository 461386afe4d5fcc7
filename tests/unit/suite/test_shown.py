"""A finding and the closing table as a notebook shows them, from small records."""

import base64
import io

import numpy as np
import pytest
import yaml
from PIL import Image
from small_records import GOOD, PAPER, small_checkout, write

from xai_utils.metrics import Estimate
from xai_utils.suite import claims, findings, shown

ODD = {
    "when": ["odd_share above 0.05"],
    "en": "Of them {odd_share:percent} are <odd>.",
    "ja": "{odd_share:percent}に違和感がある。",
}
ACCURATE = {
    "when": ["accuracy > 97"],
    "en": "The accuracy is {accuracy:spread}.",
    "ja": "正解率は{accuracy:spread}である。",
}
SUMMARY = {"when": ["P1.4.odd_share > 0"], "en": "Nothing is shown here.", "ja": "ここには数値がない。"}
PICTURE = {"name": "fig6", "alt": "Four digits, each with the frames of its morph beside it."}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout with two standard seeds, a standard figure, and findings about P1.1 and P1.4."""
    root = small_checkout(tmp_path, monkeypatch)
    paths = [write(root, seed, odd=0.2 + seed / 50, accuracy=98.4 + seed / 10) for seed in (0, 1)]
    Image.fromarray(np.zeros((100, 1800, 3), np.uint8)).save(paths[0].with_name("fig6.png"))
    summary = {"arm": "main", "sentences": [SUMMARY]}
    content = {
        "surprise": summary | {"paper": PAPER},
        "papers": {PAPER: summary},
        "claims": {
            "P1.1": {"arm": "main", "sentences": [ACCURATE]},
            "P1.4": {"arm": "main", "figure": PICTURE, "sentences": [ODD]},
        },
    }
    (root / "results/findings.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))
    return root


def test_a_finding_is_sentence_data_seeds_and_verdict(root):
    told = shown.finding(["P1.1", "P1.4"])
    assert told.paragraphs == (
        ("P1.1", "mnist, 2 seeds, partly", "The accuracy is 98.450 ± 0.071 %."),
        ("P1.4", "mnist, 2 seeds, reproduced", "Of them 21 % are <odd>."),
    )
    assert repr(told).startswith("The standard runs say\n\nP1.1 (mnist, 2 seeds, partly)\nThe accuracy is")
    assert told._repr_html_() == (
        '<div lang="en"><p><b>The standard runs say</b> (P1.1; mnist, 2 seeds, partly): The accuracy is '
        "98.450 ± 0.071 %.</p><p><b>The standard runs say</b> (P1.4; mnist, 2 seeds, reproduced): Of them 21 % are "
        "&lt;odd&gt;.</p></div>"
    )


def test_a_finding_may_say_what_its_images_are(root):
    path = root / "results/findings.yaml"
    content = yaml.safe_load(path.read_text())
    content["claims"]["P1.1"]["data"] = "MNIST: one, two"
    path.write_text(yaml.safe_dump(content, allow_unicode=True))
    assert shown.finding(["P1.1"]).paragraphs[0][1] == "MNIST: one, two, 2 seeds, partly"


def test_a_network_that_has_not_learned_its_task_shows_in_the_verdict(root):
    for seed in (0, 1):
        write(root, seed, accuracy=98.4 + seed / 10, odd=0.2 + seed / 50, learned=80.0)
    assert shown.finding(["P1.4"]).paragraphs[0][1] == "mnist, 2 seeds, not tested"


def test_in_japanese(root):
    told = shown.finding(["P1.4"], "ja")
    assert told.paragraphs == (("P1.4", "mnist, 2シード, 再現された", "21 %に違和感がある。"),)
    assert told._repr_html_().startswith('<div lang="ja"><p><b>標準実行の結果</b>')
    with pytest.raises(ValueError, match="language 'de': expected en or ja"):
        shown.finding(["P1.4"], "de")


def test_the_standard_figure_of_the_lowest_seed_follows_with_its_text_at_900_pixels(root):
    (text, about_text), (picture, about) = shown.finding(["P1.1", "P1.4"]).outputs()
    assert (set(text), about_text) == ({"text/html", "text/plain"}, {})
    assert about == {"image/png": {"alt": PICTURE["alt"]}}
    assert picture["text/plain"] == f"[{PICTURE['alt']}]"
    with Image.open(io.BytesIO(base64.b64decode(picture["image/png"]))) as image:
        assert image.size == (900, 50)
    assert len(shown.finding(["P1.4"], figure=False).outputs()) == 1
    (root / f"results/standard/{PAPER}/main/seed_0/fig6.png").unlink()
    with pytest.raises(findings.FindingError, match=r"names the figure fig6, and there is no .*main/seed_0/fig6.png"):
        shown.finding(["P1.4"])


def test_jupyter_is_given_both_outputs(root, monkeypatch):
    published = []
    monkeypatch.setattr(
        "IPython.display.publish_display_data", lambda data, metadata: published.append((data, metadata))
    )
    told = shown.finding(["P1.4"])
    told._ipython_display_()
    assert published == told.outputs()


def test_the_repository_s_records_count_whatever_the_results_folder_is(root, monkeypatch, tmp_path):
    monkeypatch.setenv("XAI_RESULTS", str(tmp_path / "elsewhere"))
    assert shown.finding(["P1.4"]).paragraphs[0][2] == "Of them 21 % are <odd>."


def test_where_a_record_is_not_current_one_line_says_so(root):
    write(root, 1, odd=0.22, accuracy=98.5, modules={"xai_utils/thing.py": "0" * 64})
    assert repr(shown.finding(["P1.4"])) == (
        "No standard result to show (P1.4: since the records of arm main, xai_utils/thing.py changed); "
        "`make batch PROFILE=standard` makes it anew."
    )


def test_a_claim_without_finding_and_an_unknown_one_are_refused(root):
    with pytest.raises(findings.FindingError, match=r"no finding about P1\.2: write one"):
        shown.finding(["P1.2"])
    with pytest.raises(findings.FindingError, match=r"no claim 'P7\.1'"):
        shown.finding(["P7.1"])


# the table at the end ---------------------------------------------------------------------------------------------


def closing(accuracy=90.0, odd=0.2):
    metrics = {name: Estimate(value, None, low, high, unit) for name, (value, low, high, unit) in GOOD.items()}
    metrics["P1.1.accuracy"] = Estimate(accuracy, 500, accuracy - 1, accuracy + 1, "%")
    metrics["P1.4.odd_share"] = Estimate(odd, 150, odd - 0.05, odd + 0.05)
    about = {"profile": "quick", "arm": "main", "dataset": "mnist"}
    return shown.closing_table(PAPER, metrics, claims.evaluate(claims.load(), PAPER, metrics, about))


def test_the_closing_table_has_words_numbers_and_the_reason(root):
    rows = closing().rows
    assert [row[0] for row in rows] == [claim.words for claim in claims.load().papers[PAPER].judged.values()]
    assert rows[0] == (
        "The test accuracy is as the paper says.",
        "98.13 %",
        "accuracy: 90.0 % [89.0, 91.0]",
        "98.450 ± 0.071 % (mnist, 2 seeds)",
        "partly (this run: not comparable)",
        "The accuracy is 98.450 ± 0.071 %.",
    )
    assert rows[3][2:] == (
        "share of odd morphs: 0.200 [0.150, 0.250]",
        "0.210 ± 0.014 (mnist, 2 seeds)",
        "reproduced",
        "Of them 21 % are <odd>.",
    )
    assert rows[1] == (
        "Training ends by early stopping.",
        "124",
        "not measured",
        "no current record",
        "not comparable",
        "—",
    )


def test_eight_rows_stand_in_the_text_and_the_others_are_folded_whole():
    rows = tuple((f"claim {i} " + "long " * 30, "no number", "a < b", "—", "partly", "why") for i in range(10))
    text = shown.ClosingTable(rows)._repr_html_()
    table, _, folded = text.partition("<details>")
    assert (table.count("<tr>"), folded.count("<tr>")) == (9, 3)
    assert "<summary>2 more claims</summary>" in folded
    assert text.count("long ") == 300  # nothing is cut
    assert "a &lt; b" in table
    assert "<details>" not in shown.ClosingTable(rows[:8])._repr_html_()
    assert "claim 9" in repr(shown.ClosingTable(rows))
