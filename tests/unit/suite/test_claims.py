"""reported.yaml: what is refused on load, and what stands before a claim. test_rules.py has the verdicts."""

from types import SimpleNamespace

import pytest
import yaml

from xai_utils.suite import claims

PAPER = "01_small"


def document(rule=None, kind="relation", **more):
    rule = rule or {"conditions": [{"metric": "P1.1.a", "test": "above", "bound": 0}]}
    if kind == "value" and "comparable" not in rule and "never" not in rule:
        rule = rule | {"comparable": {"dataset": ["mnist"]}}
    claim = {"kind": kind, "statement": "A statement of ten letters.", "place": "§1", "rule": rule}
    paper = {"title": "T", "citation": "C", "values": [], "claims": {"P1.1": claim}} | more
    return {"papers": {PAPER: paper}}


def load(tmp_path, data):
    path = tmp_path / "reported.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    return claims.load(path)


def judge(tmp_path, rule, metrics, kind="relation", **parameters):
    return claims.evaluate(load(tmp_path, document(rule, kind)), PAPER, metrics, parameters)["P1.1"]


def number(value, low=None, high=None):
    return SimpleNamespace(value=value, low=low, high=high, n=3)


A = {"metric": "P1.1.a", "test": "at_least", "bound": 1}
B = {"metric": "P1.1.b", "test": "below", "bound": 0}


def test_a_missing_metric_names_claim_metric_and_what_to_do(tmp_path):
    rule = {"conditions": [A, B]}
    with pytest.raises(claims.MissingMetric) as error:
        judge(tmp_path, rule, {"P1.1.b": number(1)})
    assert str(error.value) == "claim P1.1 needs P1.1.a: add run.measure(id, estimate) for each of them"
    assert isinstance(error.value, KeyError)
    reported = load(tmp_path, document(rule))
    with pytest.raises(claims.MissingMetric, match=r"^not measured: P1\.1\.a, P1\.1\.b; add run"):
        reported.papers[PAPER].judge("P1.1", {}, {})
    with pytest.raises(ValueError, match=r"no paper '09_x' in reported\.yaml; there are 01_small"):
        claims.evaluate(reported, "09_x", {}, {})


# ---- competence ----------------------------------------------------------------------------------------------

GATE = {"metric": "V1.accuracy", "images": "test", "at_least": 0.6, "chance": 0.5, "claims": ["P1.1"]}


def gated(tmp_path, **more):
    """P1.1 and P1.2 on one metric each; a gate stands before P1.1."""
    second = {"kind": "relation", "statement": "Another statement.", "place": "§2"}
    second |= {"rule": {"conditions": [{"metric": "P1.2.b", "test": "above", "bound": 0}]}}
    data = document({"arms": ["main", "other"], "conditions": [A]}, competence=[GATE | more])
    data["papers"][PAPER]["claims"]["P1.2"] = second
    return load(tmp_path, data)


def test_a_gate_stands_before_the_claims_that_it_names_and_its_metric_is_needed(tmp_path):
    reported = gated(tmp_path)
    metrics = {"P1.1.a": number(2), "P1.2.b": number(1), "V1.accuracy": number(0.3)}
    got = claims.evaluate(reported, PAPER, metrics, {"dataset": "mnist"})
    assert {name: verdict.verdict for name, verdict in got.items()} == {"P1.1": "not tested", "P1.2": "reproduced"}
    assert got["P1.1"].reason.startswith("the network has not learned it: V1.accuracy is 0.3 on test images")
    del metrics["V1.accuracy"]
    with pytest.raises(claims.MissingMetric, match=r"^claim P1\.1 needs V1\.accuracy: add run"):
        claims.evaluate(reported, PAPER, metrics, {})
    assert reported.papers[PAPER].missing("P1.2", {}, {}) == ["P1.2.b"]


def test_a_gate_of_some_arms_asks_nothing_of_the_others(tmp_path):
    paper = gated(tmp_path, arms=["other"]).papers[PAPER]
    metrics = {"P1.1.a": number(2), "V1.accuracy": number(0.3)}
    assert paper.judge("P1.1", {"P1.1.a": number(2)}, {"arm": "main"}).verdict == "reproduced"
    assert paper.missing("P1.1", {"P1.1.a": number(2)}, {"arm": "other"}) == ["V1.accuracy"]
    assert paper.judge("P1.1", metrics, {"arm": "other"}).verdict == "not tested"
    assert paper.judge("P1.1", {}, {"arm": "third"}).evidence == "belongs to arm main or other, not third"


def test_on_own_images_every_claim_stands_behind_a_gate_in_every_arm(tmp_path):
    paper = gated(tmp_path, arms=["other"]).papers[PAPER]
    metrics = {"P1.1.a": number(2), "P1.2.b": number(1), "V1.accuracy": number(0.7, 0.4, 0.9)}
    for arm in ("main", "other"):
        for claim in ("P1.1", "P1.2"):  # the second is named by no gate
            own = {"arm": arm, "own": True}
            if claim == "P1.2" and arm == "other":  # which its rule does not judge
                continue
            assert paper.judge(claim, metrics, own).verdict == "not tested", (arm, claim)
            assert "as guessing gives" in paper.judge(claim, metrics, own).reason
            learned = metrics | {"V1.accuracy": number(0.7, 0.6, 0.9)}
            assert paper.judge(claim, learned, own).verdict == "reproduced", (arm, claim)
    assert paper.missing("P1.2", {"P1.2.b": number(1)}, {"own": True}) == ["V1.accuracy"]
    assert paper.warning(metrics, {"own": True}).startswith("This network has not learned its task")
    assert paper.warning(metrics, {}) == ""


def test_on_own_images_a_claim_that_no_gate_names_needs_every_network_that_was_trained(tmp_path):
    other = GATE | {"metric": "V1.other"}
    paper = load(tmp_path, document(competence=[GATE | {"claims": ["P1.1"]}, other])).papers[PAPER]
    second = paper.model_copy(
        update={"competence": [gate.model_copy(update={"claims": []}) for gate in paper.competence]}
    )
    metrics = {"P1.1.a": number(2), "V1.accuracy": number(0.9, 0.8, 1.0)}
    assert second.judge("P1.1", metrics, {"own": True}).verdict == "reproduced"
    guessing = metrics | {"V1.other": number(0.6, 0.4, 0.8)}
    assert second.judge("P1.1", guessing, {"own": True}).verdict == "not tested"
    assert "V1.other is 0.6" in second.warning(guessing, {"own": True})
    assert second.judge("P1.1", guessing, {}).verdict == "reproduced"


def test_a_network_is_asked_for_by_a_claim_about_it(tmp_path):
    paper = gated(tmp_path).papers[PAPER]
    found = paper.competent("P1.1", {"V1.accuracy": number(0.3)}, {})
    assert (found.learned, found.text) == (False, "V1.accuracy is 0.3 on test images, it needs 0.6")
    assert paper.competent("P1.1", {"V1.accuracy": number(0.7)}, {}).learned is True
    assert paper.competent("P1.1", {"V1.accuracy": number(0.3)}, {"arm": "an arm without claims"}).learned is False
    assert paper.competent("P1.2", {}, {}) == (True, "no bound is set")
    with pytest.raises(claims.MissingMetric, match=r"V1\.accuracy"):
        paper.competent("P1.1", {}, {})
    with pytest.raises(ValueError, match=r"no claim 'P1\.9'; there are P1\.1, P1\.2"):
        paper.competent("P1.9", {}, {})


def test_of_two_networks_the_one_that_has_not_learned_counts_then_the_one_that_nobody_knows(tmp_path):
    other = GATE | {"metric": "V1.other", "chance": "V1.chance"}
    paper = load(tmp_path, document(competence=[GATE, other])).papers[PAPER]
    for first, second, own, learned in (
        (0.9, 0.9, False, True), (0.9, 0.3, False, False), (0.3, 0.9, False, False), (0.9, 0.9, True, None),
        (0.3, 0.9, True, False),
    ):  # fmt: skip
        metrics = {"V1.accuracy": number(first), "V1.other": number(second)}
        assert paper.competent("P1.1", metrics, {"own": own}).learned is learned


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"claims": ["P1.9"]}, "competence: P1.9 is no claim of 01_small"),
        ({"metric": "P2.accuracy"}, "competence: P2.accuracy is no metric of 01_small"),
        ({"images": "training"}, "'validation' or 'test'"),
        ({"claims": []}, "at least 1 item"),
        ({"bound": 1}, "Extra inputs are not permitted"),
    ],
)
def test_a_gate_outside_the_vocabulary_is_refused(tmp_path, change, sentence):
    with pytest.raises(ValueError, match=r"is not valid") as error:
        load(tmp_path, document(competence=[GATE | change]))
    assert sentence in str(error.value)


# ---- refused on load -----------------------------------------------------------------------------------------

OK = {"metric": "P1.1.a", "test": "above", "bound": 0}
BAD_RULES = {
    "unknown key": ({"conditions": [OK], "sometimes": 1}, "Extra inputs are not permitted"),
    "unknown key of a condition": ({"conditions": [OK | {"bonus": 1}]}, "Extra inputs are not permitted"),
    "unknown test": ({"conditions": [OK | {"test": "equals"}]}, "'at_least', 'at_most', 'above', 'below' or 'within'"),
    "end of an interval": ({"conditions": [OK | {"use": "low"}]}, "Extra inputs are not permitted"),
    "bound as text": ({"conditions": [OK | {"bound": "1e-4"}]}, "valid number"),
    "bound not finite": ({"conditions": [OK | {"bound": float("nan")}]}, "finite number"),
    "bound and other": ({"conditions": [OK | {"other": "P1.1.b"}]}, "either `bound` or `other`, and not both"),
    "neither": ({"conditions": [{"metric": "P1.1.a", "test": "above"}]}, "either `bound` or `other`, and not both"),
    "margin without other": ({"conditions": [OK | {"margin": 1}]}, "`margin` and `difference` go with `other` alone"),
    "difference without other": ({"conditions": [OK | {"difference": "P1.1.c"}]}, "go with `other` alone"),
    "necessary by construction": (
        {"conditions": [OK, OK | {"necessary": True, "by_construction": True}]},
        "what holds by construction is no necessary condition",
    ),
    "nothing counts": ({"conditions": [OK | {"by_construction": True}]}, "at most the 0 conditions that count"),
    "tolerance without within": ({"conditions": [OK | {"tolerance": 1}]}, "`tolerance` goes with `test: within`"),
    "within without tolerance": ({"conditions": [OK | {"test": "within"}]}, "`tolerance` goes with `test: within`"),
    "tolerance of zero": ({"conditions": [OK | {"test": "within", "tolerance": 0}]}, "greater than 0"),
    "no condition": ({}, "either `conditions` or `never`, and not both"),
    "never and conditions": ({"conditions": [OK], "never": "not tested", "because": "it needs people"}, "not both"),
    "never with needs": (
        {"never": "not tested", "because": "it needs people", "needs": [{"metric": "P1.1.a", "at_least": 1}]},
        "takes `because`, `arms` and `data` only",
    ),
    "never as a pass": ({"never": "reproduced", "because": "it needs people"}, "'not tested' or 'not comparable'"),
    "never without because": ({"never": "not tested"}, "`because` gives the reason"),
    "cap without because": ({"conditions": [OK], "at_most": "partly"}, "`because` gives the reason"),
    "because alone": ({"conditions": [OK], "because": "it needs people"}, "`because` gives the reason"),
    "partly_at too high": (
        {"conditions": [OK], "partly_at": 2},
        "partly_at 2, reproduced_at 1: expected at most the 1",
    ),
    "reproduced_at too high": ({"conditions": [OK], "reproduced_at": 2}, "partly_at 1, reproduced_at 2: expected"),
    "reproduced before partly": (
        {"conditions": [OK, OK, OK], "reproduced_at": 1, "partly_at": 2},
        "partly_at 2, reproduced_at 1: expected at most the 3 conditions that count, the second not below the first",
    ),
    "partly_at of zero": ({"conditions": [OK], "partly_at": 0}, "greater than or equal to 1"),
    "metric of no claim": ({"conditions": [OK | {"metric": "P1.7.a"}]}, "a metric of P1.7, which is no claim"),
    "metric without name": ({"conditions": [OK | {"metric": "P1.1"}]}, "should match pattern"),
    "comparable on a relation": ({"conditions": [OK], "comparable": {"dataset": ["mnist"]}}, "goes with `kind: value`"),
    "no arm": ({"conditions": [OK], "arms": []}, "at least 1 item"),
}


@pytest.mark.parametrize("name", BAD_RULES)
def test_a_rule_outside_the_vocabulary_is_refused(tmp_path, name):
    rule, sentence = BAD_RULES[name]
    data = document()
    data["papers"][PAPER]["claims"]["P1.1"]["rule"] = rule
    with pytest.raises(ValueError, match=r"reported\.yaml is not valid") as error:
        load(tmp_path, data)
    assert sentence in str(error.value)


def test_other_claims_may_be_referred_to_but_one_metric_must_be_the_claims_own(tmp_path):
    data = document()
    second = {"kind": "relation", "statement": "Another statement.", "place": "§2"}
    mine = {"metric": "P1.2.b", "test": "above", "bound": 0}
    data["papers"][PAPER]["claims"]["P1.2"] = second | {"rule": {"conditions": [mine, OK]}}
    assert len(load(tmp_path, data).papers[PAPER].claims["P1.2"].rule.conditions) == 2
    data["papers"][PAPER]["claims"]["P1.2"] = second | {"rule": {"conditions": [OK]}}
    with pytest.raises(ValueError, match=r"claim P1\.2: none of its metrics begins with P1\.2\."):
        load(tmp_path, data)


VALUE = {"id": "P1.1.a", "value": 1.5, "place": "§1"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"values": [VALUE, VALUE]}, "value P1.1.a stands twice"),
        ({"values": [VALUE | {"value": "1e-4"}]}, "write a plain number such as 1.0e-4"),
        ({"headlines": [{"metric": "P2.1.a", "says": "it"}]}, "headline P2.1.a is no metric of 01_"),
        ({"values": [VALUE | {"id": "P1.2.a"}]}, "value P1.2.a begins with no claim id"),
        ({"values": [VALUE | {"id": "P2.setting.a"}]}, "value P2.setting.a begins with no claim id"),
        ({"values": [VALUE | {"std": -1.0}]}, "greater than or equal to 0"),
        ({"values": [VALUE | {"vaule": 1}]}, "Extra inputs are not permitted"),
        ({"extensions": {"P1.2": document()["papers"][PAPER]["claims"]["P1.1"]}}, "claim ids look like X1.1, not P1.2"),
    ],
)
def test_inconsistent_papers_are_refused(tmp_path, change, sentence):
    with pytest.raises(ValueError, match=r"is not valid") as error:
        load(tmp_path, document(**change))
    assert sentence in str(error.value)


def test_a_value_needs_comparable_and_names_must_be_notebooks(tmp_path):
    data = document()
    data["papers"][PAPER]["claims"]["P1.1"]["kind"] = "value"
    with pytest.raises(ValueError, match="goes with `kind: value`, always"):
        load(tmp_path, data)
    with pytest.raises(ValueError, match="first is no notebook name such as 01_id_cvae_morphing"):
        load(tmp_path, {"papers": {"first": document()["papers"][PAPER]}})


def test_a_key_given_twice_is_an_error_at_any_depth(tmp_path):
    text = yaml.safe_dump(document())
    assert "title: T" in text
    with pytest.raises(ValueError, match=r"'title' stands twice, again in line \d+"):
        load(tmp_path, text.replace("title: T", "title: T\n    title: U"))
    with pytest.raises(ValueError, match="'bound' stands twice"):
        load(tmp_path, text.replace("- bound: 0", "- bound: 0\n            bound: 1"))
    with pytest.raises(ValueError, match="is not valid"):
        load(tmp_path, "papers: {")
