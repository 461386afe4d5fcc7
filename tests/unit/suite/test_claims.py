"""The rules' vocabulary: what is refused on load, and every verdict against the logic rewritten slowly."""

import itertools
import json
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


# ---- verdicts ------------------------------------------------------------------------------------------------


def slow_holds(condition, metrics):
    """One condition, spelled out: True, False, or None where it is not defined."""
    x = metrics[condition["metric"]].value
    if "use" in condition and condition["use"] == "low":
        x = metrics[condition["metric"]].low
    if "use" in condition and condition["use"] == "high":
        x = metrics[condition["metric"]].high
    if "other" in condition:
        y = metrics[condition["other"]].value
        if y is not None and "margin" in condition:
            y = y + condition["margin"]
    else:
        y = condition["bound"]
    if x is None or y is None:
        return None
    if condition["test"] == "at_least":
        return not x < y
    if condition["test"] == "at_most":
        return not x > y
    if condition["test"] == "above":
        return x > y
    if condition["test"] == "below":
        return x < y
    return y - condition["tolerance"] <= x <= y + condition["tolerance"]


def slow_verdict(rule, kind, metrics, parameters):
    """The whole rule, spelled out."""
    if "never" in rule:
        return rule["never"]
    arm = parameters.get("arm", "main")
    arms = rule.get("arms", ["main"])
    if arm not in arms:
        return "not tested"
    for need in rule.get("needs", []):
        count = metrics[need["metric"]].value
        if count is None:
            return "not tested"
        if count < need["at_least"]:
            return "not tested"
    holding, undefined, total = 0, 0, 0
    for condition in rule["conditions"]:
        total += 1
        result = slow_holds(condition, metrics)
        if result is None:
            undefined += 1
        elif result:
            holding += 1
    if undefined == total:
        return "not tested"
    if kind == "value":
        for name, allowed in rule["comparable"].items():
            value = parameters.get(name, "main" if name == "arm" else None)
            if value not in allowed:
                return "not comparable"
    if holding == total:
        return rule.get("at_most", "reproduced")
    least = rule.get("partly_at", 1)
    if holding >= least:
        return "partly"
    return "not reproduced"


THREE = [
    {"metric": "P1.1.a", "test": "at_least", "bound": 1},
    {"metric": "P1.1.b", "test": "below", "bound": 0, "use": "high"},
    {"metric": "P1.1.c", "test": "above", "other": "P1.1.a", "margin": 0.5},
]
EXTRAS = [
    {},
    {"partly_at": 2},
    {"partly_at": 3},
    {"at_most": "partly", "because": "it needs people"},
    {"needs": [{"metric": "P1.1.n", "at_least": 10}]},
    {"arms": ["improved"]},
]


@pytest.mark.parametrize("extra", EXTRAS, ids=str)
@pytest.mark.parametrize("kind", ["value", "relation"])
def test_every_verdict_against_the_slow_logic(tmp_path, extra, kind):
    rule = {"conditions": THREE} | extra
    if kind == "value":
        rule |= {"comparable": {"dataset": ["mnist"], "arm": ["main"]}}
    reported, seen = load(tmp_path, document(rule, kind)), set()
    cases = itertools.product((0.0, 1.0, None), (-1.0, 0.0, None), (1.5, 2.0, None), (9, 10, None), ("mnist", "digits"))
    for a, b, c, n, dataset in cases:
        metrics = {"P1.1.a": number(a), "P1.1.b": number(b, b, b), "P1.1.c": number(c), "P1.1.n": number(n)}
        parameters = {"dataset": dataset}
        got = claims.evaluate(reported, PAPER, metrics, parameters)["P1.1"]
        assert got.verdict == slow_verdict(rule, kind, metrics, parameters), (metrics, parameters)
        if got.conditions:
            assert [o.holds for o in got.conditions] == [slow_holds(condition, metrics) for condition in THREE]
        seen.add(got.verdict)
    if not extra:
        expected = {"reproduced", "partly", "not reproduced", "not tested"}
        assert seen == expected | ({"not comparable"} if kind == "value" else set())


@pytest.mark.parametrize("test", ["at_least", "at_most", "above", "below", "within"])
@pytest.mark.parametrize("use", ["value", "low", "high"])
@pytest.mark.parametrize("x", [0.5, 1.0, 1.25, 1.5, 2.0])
def test_each_comparison_at_and_around_its_bound(tmp_path, test, use, x):
    condition = {"metric": "P1.1.a", "test": test, "bound": 1.0, "use": use}
    condition |= {"tolerance": 0.25} if test == "within" else {}
    metrics = {"P1.1.a": SimpleNamespace(**({"value": -9.0, "low": -9.0, "high": -9.0} | {use: x}))}
    holds = slow_holds(condition, metrics)
    verdict = judge(tmp_path, {"conditions": [condition]}, metrics)
    assert verdict.verdict == ("reproduced" if holds else "not reproduced")
    assert verdict.conditions[0].holds is holds


def test_a_margin_is_added_to_the_other_metric(tmp_path):
    rule = {"conditions": [{"metric": "P1.1.a", "test": "at_least", "other": "P1.1.b", "margin": -0.5}]}
    assert judge(tmp_path, rule, {"P1.1.a": number(1.5), "P1.1.b": number(2.0)}).verdict == "reproduced"
    assert judge(tmp_path, rule, {"P1.1.a": number(1.4), "P1.1.b": number(2.0)}).verdict == "not reproduced"


def test_never_and_a_foreign_arm_need_no_metric(tmp_path):
    never = judge(tmp_path, {"never": "not comparable", "because": "it is context only"}, {}, kind="value")
    assert (never.verdict, never.evidence) == ("not comparable", "it is context only")
    rule = {"arms": ["improved"], "conditions": THREE}
    other = judge(tmp_path, rule, {}, arm="main")
    assert (other.verdict, other.evidence) == ("not tested", "belongs to arm improved, not main")


# ---- evidence ------------------------------------------------------------------------------------------------


def test_evidence_is_one_plain_sentence_per_condition_with_the_numbers(tmp_path):
    rule = {
        "needs": [{"metric": "P1.1.n", "at_least": 10}],
        "comparable": {"dataset": ["mnist"], "profile": ["standard", "paper"]},
        "conditions": [
            {"metric": "P1.1.a", "test": "at_least", "bound": 97.86},
            {"metric": "P1.1.b", "test": "above", "bound": 0, "use": "low"},
            {"metric": "P1.1.c", "test": "within", "bound": 3, "tolerance": 0.5},
            {"metric": "P1.1.a", "test": "below", "other": "P1.1.c", "margin": 1},
        ],
    }
    metrics = {"P1.1.a": number(98.46), "P1.1.b": number(1, -0.125, 2), "P1.1.c": number(None), "P1.1.n": number(12)}
    got = judge(tmp_path, rule, metrics, kind="value", dataset="digits", profile="quick")
    assert got.verdict == "not comparable"
    assert got.evidence.split("; ") == [
        "dataset is digits, not mnist",
        "profile is quick, not standard or paper",
        "P1.1.a 98.46 ≥ 97.86: holds",
        "P1.1.b (low end) -0.125 > 0: does not hold",
        "P1.1.c is not defined, so it does not hold",
        "P1.1.c is not defined, so it does not hold",
        "measured on digits",
    ]
    few = judge(tmp_path, rule, metrics | {"P1.1.n": number(4)}, kind="value", dataset="mnist", profile="paper")
    assert few.verdict == "not tested"
    assert few.evidence.startswith("P1.1.n is 4, the rule needs 10; P1.1.a 98.46")
    metrics["P1.1.c"] = number(3.25)
    shown = judge(tmp_path, rule, metrics, kind="value", dataset="mnist", profile="paper").evidence
    assert "P1.1.c 3.25 = 3 ± 0.5: holds; P1.1.a 98.46 < 4.25 (P1.1.c +1): does not hold" in shown


def test_a_cap_says_why_and_close_numbers_stay_apart(tmp_path):
    rule = {"conditions": [{"metric": "P1.1.a", "test": "at_least", "bound": 97.86}]}
    near = judge(tmp_path, rule, {"P1.1.a": number(97.8599999999)}).evidence
    assert near == "P1.1.a 97.8599999999 ≥ 97.86: does not hold"
    capped = judge(tmp_path, rule | {"at_most": "partly", "because": "it needs people"}, {"P1.1.a": number(98)})
    assert capped.verdict == "partly"
    assert capped.evidence.endswith("at most partly, because it needs people")


def test_a_missing_metric_or_interval_names_claim_metric_and_what_to_do(tmp_path):
    rule = {"conditions": [THREE[0], THREE[1]]}
    with pytest.raises(claims.MissingMetric) as error:
        judge(tmp_path, rule, {"P1.1.b": number(1)})
    assert str(error.value).startswith("claim P1.1 needs P1.1.a, the high end of P1.1.b: add run.measure(")
    assert isinstance(error.value, KeyError)
    reported = load(tmp_path, document(rule))
    with pytest.raises(claims.MissingMetric, match=r"P1\.1\.a"):
        reported.papers[PAPER].claims["P1.1"].rule.evaluate("relation", {}, {})
    with pytest.raises(ValueError, match=r"no paper '09_x' in reported\.yaml; there are 01_small"):
        claims.evaluate(reported, "09_x", {}, {})


def test_metrics_may_be_objects_and_verdicts_survive_json(tmp_path):
    metrics = {"P1.1.a": SimpleNamespace(value=2.0, low=1.0, high=3.0, n=4)}
    rule = {"conditions": [{"metric": "P1.1.a", "test": "above", "bound": 1.5, "use": "high"}]}
    got = judge(tmp_path, rule, metrics)
    assert got.verdict == "reproduced"
    assert claims.Verdict.model_validate(json.loads(json.dumps(got.model_dump(mode="json")))) == got


# ---- refused on load -----------------------------------------------------------------------------------------

OK = {"metric": "P1.1.a", "test": "above", "bound": 0}
BAD_RULES = {
    "unknown key": ({"conditions": [OK], "sometimes": 1}, "Extra inputs are not permitted"),
    "unknown key of a condition": ({"conditions": [OK | {"bonus": 1}]}, "Extra inputs are not permitted"),
    "unknown test": ({"conditions": [OK | {"test": "equals"}]}, "'at_least', 'at_most', 'above', 'below' or 'within'"),
    "unknown end": ({"conditions": [OK | {"use": "median"}]}, "'value', 'low' or 'high'"),
    "bound as text": ({"conditions": [OK | {"bound": "1e-4"}]}, "valid number"),
    "bound not finite": ({"conditions": [OK | {"bound": float("nan")}]}, "finite number"),
    "bound and other": ({"conditions": [OK | {"other": "P1.1.b"}]}, "either `bound` or `other`, and not both"),
    "neither": ({"conditions": [{"metric": "P1.1.a", "test": "above"}]}, "either `bound` or `other`, and not both"),
    "margin without other": ({"conditions": [OK | {"margin": 1}]}, "`margin` goes with `other` alone"),
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
    "partly_at too high": ({"conditions": [OK], "partly_at": 2}, "partly_at 2 exceeds the 1 conditions"),
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


def test_a_rule_about_one_data_set_leaves_others_untested_and_asks_nothing_of_them():
    rule = {"data": ["rectangles"], "conditions": [{"metric": "P1.1.accuracy", "test": "above", "bound": 0.5}]}
    entry = claims.Rule(**rule)
    assert entry.missing({}, {"dataset": "mine"}) == []
    assert entry.missing({}, {"dataset": "rectangles"}) == ["P1.1.accuracy"]
    verdict = entry.evaluate("relation", {}, {"dataset": "mine"})
    assert (verdict.verdict, verdict.evidence) == ("not tested", "is about rectangles, not mine")
    measured = {"P1.1.accuracy": SimpleNamespace(value=0.6, low=None, high=None)}
    assert entry.evaluate("relation", measured, {"dataset": "rectangles"}).verdict == "reproduced"
    assert entry.evaluate("relation", measured, {"dataset": "rectangles", "arm": "other"}).verdict == "not tested"
