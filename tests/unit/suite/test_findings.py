"""Sentences filled from records: what is filled, what is refused as untrue, and what findings.yaml may not hold."""

import re

import pytest
import yaml
from small_records import PAPER, small_checkout, write

from xai_utils.suite import findings

CLAIM = "P1.4"
GOOD = {
    "when": ["odd_share above 0.05", "odd_share < 0.5 in every seed"],
    "en": "Of all images {odd_share:percent} are odd over {odd_share:n} seeds.",
    "ja": "全画像の{odd_share:percent}に 違和感がある。",
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout with two seeds: the odd share is 0.20 and 0.22, over both 0.21 [0.083, 0.337]."""
    root = small_checkout(tmp_path, monkeypatch)
    for seed in (0, 1):
        write(root, seed, odd=0.2 + seed / 50, accuracy=98.4)
    return root


def told(root, language="en", arm="main", where=CLAIM, **change):
    entry = findings.Finding(arm=arm, sentences=[findings.Sentence(**(GOOD | change))])
    return findings.tell(where, entry, PAPER, language, findings.Source(root))


def test_numbers_are_those_of_the_records(root):
    assert told(root) == ["Of all images 21 % are odd over 2 seeds."]
    assert told(root, "ja") == ["全画像の21 %に違和感がある。"]  # where the file folds a line, Japanese has no space


def test_the_paper_s_number_a_parameter_and_another_claim_s_metric_can_be_shown(root):
    text = "It is {P1.1.accuracy:value}, in the paper {P1.1.accuracy@paper}, after {epochs:parameter} epochs."
    when = ["P1.1.accuracy > P1.1.accuracy@paper"]
    assert told(root, when=when, en=text, ja=text) == ["It is 98.4 %, in the paper 98.13 %, after 2 epochs."]


def test_a_seed_that_a_mean_would_hide_can_be_shown(root):
    write(root, 2, odd=0.06, accuracy=98.4)
    when, text = ["odd_share < 0.1 in some seed"], "From {odd_share:least} over {odd_share:median} to {odd_share:most}."
    assert told(root, when=when, en=text, ja=text) == ["From 0.06 over 0.2 to 0.22."]


@pytest.mark.parametrize(
    ("condition", "values"),
    [
        ("odd_share above 0.15", "P1.4.odd_share@main is 0.21 [0.082938, 0.337062]"),
        ("odd_share below 0.3", "P1.4.odd_share@main is 0.21"),
        ("odd_share spans 0.4", "P1.4.odd_share@main is 0.21"),
        ("odd_share > 0.3", "P1.4.odd_share@main is 0.21"),
        ("P1.3.a.distance_difference above 0.2", "P1.3.a.distance_difference@main is 0.3 [0.2, 0.4]"),
        ("odd_share < 0.21 in every seed", "P1.4.odd_share@main is 0.21"),
        ("odd_share < 0.2 in some seed", "P1.4.odd_share@main is 0.21"),
        ("odd_share = 0.2", "P1.4.odd_share@main is 0.21"),
        ("odd_share undefined", "P1.4.odd_share@main is 0.21"),
        ("odd_share > P1.1.accuracy", "P1.1.accuracy@main is 98.4"),
        ("odd_share >= P1.1.accuracy@paper", "P1.1.accuracy@paper is 98.13"),
    ],
)
def test_an_untrue_sentence_names_the_claim_the_metric_and_the_values(root, condition, values):
    with pytest.raises(findings.FindingError, match=r"P1\.4: `" + re.escape(condition)) as refused:
        told(root, when=[condition, "odd_share > 0"])
    assert values in str(refused.value)
    assert "results/findings.yaml" in str(refused.value)


@pytest.mark.parametrize(
    "condition",
    ["odd_share above 0.05", "odd_share below 0.5", "odd_share spans 0.15", "odd_share >= 0.21", "odd_share <= 0.22",
     "odd_share = 0.21", "odd_share < P1.1.accuracy in every seed", "odd_share < 0.21 in some seed",
     "P1.3.a.distance_difference spans 0.2"],
)  # fmt: skip
def test_what_holds_is_told(root, condition):
    assert told(root, when=[condition, "odd_share > 0"]) == ["Of all images 21 % are odd over 2 seeds."]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm": "improved"}, "P1.4: there is no standard record of 01_id_cvae_morphing, arm improved"),
        (
            {"when": ["odd_shares > 0", "odd_share > 0"]},
            "no metric P1.4.odd_shares; P1.4.odd_share, P1.4.odd_share_correct, …",
        ),
        ({"when": ["odd_share > P1.3.chance@paper"]}, "reported.yaml has no number P1.3.chance"),
        ({"en": "After {rounds:parameter} rounds, it is {odd_share}."}, "arm main have no parameter rounds"),
    ],
)
def test_what_cannot_be_filled_is_refused(root, change, message):
    change = GOOD | {"ja": "全画像の{odd_share}に違和感がある。"} | change
    with pytest.raises(findings.FindingError, match=re.escape(message)):
        told(root, **change)


def test_an_interval_that_a_metric_lacks_is_refused(root):
    text = "The accuracy is {P1.1.accuracy:interval} in one seed."
    for path in (root / "results/standard").rglob("seed_1"):
        for file in path.iterdir():
            file.unlink()
    with pytest.raises(findings.FindingError, match=r"P1\.4: P1\.1\.accuracy@main: it has no interval"):
        told(root, when=["P1.1.accuracy > 0"], en=text, ja=text)
    with pytest.raises(findings.FindingError, match="does not hold"):
        told(
            root, when=["P1.1.accuracy above 0"], en="It is {P1.1.accuracy} in one seed.", ja="{P1.1.accuracy}である。"
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"when": []}, "at least 1 item"),
        ({"when": ["odd_share is large"]}, "condition 'odd_share is large': expected such as"),
        ({"when": ["odd_share above 0 in every seed"]}, "expected such as"),  # a seed has no interval over seeds
        ({"when": ["P1.1.accuracy > 0"]}, "no condition is about odd_share"),
        ({"en": "Of all images 21 % and {odd_share} are odd."}, "'2' is typed"),
        ({"ja": "全画像の二割、{odd_share:percent}と0.2に違和感がある。"}, "ja: '0' is typed"),
        ({"en": "Of all images {odd_share:percent are odd, in all."}, "a brace is left over"),
        ({"en": "Nothing is said about any number here."}, "the two languages show different numbers"),
    ],
)
def test_a_sentence_that_would_go_stale_is_refused_on_load(root, change, message):
    with pytest.raises(ValueError, match=message):
        findings.Sentence(**(GOOD | change))


@pytest.mark.parametrize("name", ["CIFAR-10", "eq. (1)", "P1.3", "C1C", "R²", "Paper 2", "ResNet-18", "1/Z"])
def test_digits_of_names_are_no_numbers(name):
    assert name in findings.Sentence(**(GOOD | {"en": f"Of {name}, {{odd_share:percent}} are odd."})).en


def test_a_file_with_a_wrong_entry_is_refused_by_name(root):
    path = root / "results/findings.yaml"
    entry = {"arm": "main", "sentences": [GOOD]}
    content = {
        "surprise": entry | {"paper": PAPER},
        "papers": {PAPER: entry},
        "claims": {CLAIM: entry | {"colour": "red"}},
    }
    path.write_text(yaml.safe_dump(content, allow_unicode=True))
    with pytest.raises(ValueError, match=r"findings.yaml is not valid.*\n  claims.P1.4.colour: Extra inputs"):
        findings.load()
    del content["claims"][CLAIM]["colour"]
    path.write_text(yaml.safe_dump(content, allow_unicode=True))
    assert findings.load().claims[CLAIM].sentences[0].when == GOOD["when"]
    path.write_text("claims: {}\nclaims: {}\n")
    with pytest.raises(ValueError, match="'claims' stands twice"):
        findings.load()


def test_which_records_are_not_current_is_said(root):
    entry = findings.Finding(arm="main", sentences=[findings.Sentence(**GOOD)])
    assert findings.not_current(CLAIM, entry, PAPER, findings.Source(root)) == []
    elsewhere = findings.Sentence(**(GOOD | {"when": [*GOOD["when"], "odd_share@improved > 0"]}))
    other = findings.Finding(arm="main", sentences=[elsewhere])
    said = findings.not_current(CLAIM, other, PAPER, findings.Source(root))
    assert said == ["P1.4: there is no standard record of arm improved"]
    write(root, 1, odd=0.22, accuracy=98.4, modules={"xai_utils/thing.py": "0" * 64})
    said = findings.not_current(CLAIM, entry, PAPER, findings.Source(root))
    assert said == ["P1.4: since the records of arm main, xai_utils/thing.py changed"]


def test_an_unknown_claim_and_paper_are_refused_with_those_there_are(root):
    with pytest.raises(findings.FindingError, match=r"no claim 'P1.9'.*there are P1.1, P1.2"):
        findings.Source(root).paper_of("P1.9")
    texts = {key: GOOD[key].replace("odd_share", "P1.4.odd_share") for key in ("en", "ja")}
    entry = {"arm": "main", "sentences": [texts | {"when": ["P1.4.odd_share > 0"]}]}
    content = {"surprise": entry | {"paper": PAPER}, "papers": {PAPER: entry}, "claims": {}}
    (root / "results/findings.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))
    assert findings.summary(PAPER, "en") == "Of all images 21 % are odd over 2 seeds."
    with pytest.raises(findings.FindingError, match="no paper '02_moram_regression'; there are 01_id"):
        findings.summary("02_moram_regression", "en")
