"""The verdict bench: the rule in the page gives Python's verdicts, and the bench works by keyboard alone."""

import functools
import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "site"))
import bench as site_bench
from conftest import idle_machine

from xai_utils.suite.findings import Source
from xai_utils.suite.pooled import over_seeds


class Once(Source):
    __hash__ = object.__hash__  # a key of `over`


@pytest.fixture(scope="module")
def source():
    return Once()


@pytest.fixture
def bench(page, site):
    page.goto(site + "bench.html", wait_until="load")
    return page


def variations(case):
    """(kept seeds, bounds): as committed; without one seed; each bound near its metric's ends, and far off."""
    everything = list(range(len(case["seeds"])))
    bounds = [c.get("margin", 0.0) if "other" in c else c["bound"] for c in case["conditions"]]
    yield everything, bounds
    for left_out in everything if len(everything) > 1 else ():
        yield [k for k in everything if k != left_out], bounds
    if len(everything) > 2 and not case["pooled"]:
        yield everything[:1], bounds
    for place, condition in enumerate(case["conditions"]):
        metric = case["metrics"][condition.get("difference") or condition["metric"]]
        numbers = [x for x in (*metric["values"], *metric["lows"], *metric["highs"]) if x is not None]
        for end in {min(numbers), max(numbers), sum(numbers) / len(numbers)} if numbers else ():
            for shift in (-1e-3, 1e-3, -10.0, 10.0):
                moved = list(bounds)
                moved[place] = end + shift * max(abs(end), 1e-3)
                yield everything, moved


@functools.cache
def over(source, stem, arm, claim, kept):
    own = source.records(stem, arm, claim)
    others = [record for record in source.records(stem, arm) if record not in own]
    return over_seeds(source.reported.papers[stem], [*others, *(own[k] for k in kept)], source.root / "results")


def python_says(source, case, kept, bounds):
    stem = next(s for s in source.reported.papers if int(s[:2]) == int(case["paper"]))
    paper, records = source.reported.papers[stem], source.records(stem, case["arm"], case["id"])
    claim = paper.judged[case["id"]]
    conditions = [
        c.model_copy(update={"margin" if c.other else "bound": bound})
        for c, bound in zip(claim.rule.conditions, bounds)
    ]
    rule = claim.rule.model_copy(update={"conditions": conditions})
    metrics = over(source, stem, case["arm"], case["id"], tuple(kept))
    subject = records[0].subject | {"together": True}
    return rule.evaluate(claim.kind, metrics, subject, site_bench.gates_of(paper, case["id"], subject)), metrics


def test_every_verdict_of_the_page_is_pythons(bench, source):
    cases = bench.evaluate("BENCH.cases")
    assert {case["id"] for case in cases} >= {"P1.1", "P2.4", "P3.1", "P4.5", "P5.2", "X5.3"}
    asked = [(i, kept, bounds) for i, case in enumerate(cases) for kept, bounds in variations(case)]
    answers = bench.evaluate(
        """asked => asked.map(([i, kept, bounds]) => {
            const { verdict, outcomes, merged } = benchRule.judge(BENCH.cases[i], kept, bounds, BENCH.t);
            return { verdict, holds: outcomes.map(o => o.holds), merged };
        })""",
        asked,
    )
    assert len(asked) > 500
    for (i, kept, bounds), answer in zip(asked, answers):
        case = cases[i]
        said, metrics = python_says(source, case, kept, bounds)
        where = f"{case['key']}, seeds {kept}, bounds {bounds}"
        assert answer["verdict"] == said.verdict, where
        assert answer["holds"] == [outcome.holds for outcome in said.conditions][: len(answer["holds"])], where
        for name, merged in (answer.get("merged") or {}).items():
            for end in ("value", "low", "high"):
                ours = getattr(metrics[name], end)
                assert (merged[end] is None) == (ours is None), f"{where}: {name} {end}"
                assert ours is None or math.isclose(merged[end], ours, rel_tol=1e-9, abs_tol=1e-12), f"{where}: {name}"


def test_metrics_of_all_seeds_at_once_are_looked_up(bench, source):
    """As X4.4's and paper 5's are: here every metric of some cases is given that way."""
    cases = [case for case in bench.evaluate("BENCH.cases") if case["key"] in ("P1.3", "P2.4", "P4.2@grad_cam", "P5.4")]
    assert len(cases) == 4
    for case in cases:
        stem = source.paper_of(case["id"])
        n, where = len(case["seeds"]), (source, stem, case["arm"], case["id"])
        case["pooled"] = {name: site_bench._together(*where, name, n) for name in case["metrics"]}
        for kept, bounds in [([k for k in range(n) if k != out], None) for out in (*range(n), None)]:
            bounds = bench.evaluate("c => benchRule.committed(c)", case)
            answer = bench.evaluate("([c, k, b]) => benchRule.judge(c, k, b, BENCH.t)", [case, kept, bounds])
            said, metrics = python_says(source, case, kept, bounds)
            # a condition by seed reads the seeds' own values, which such a metric has not
            if not any(condition.get("by_seed") for condition in case["conditions"]):
                assert answer["verdict"] == said.verdict, (case["key"], kept)
            assert {name: one["value"] for name, one in answer["merged"].items()} == {
                name: metrics[name].value for name in case["metrics"]
            }
        if n > 2:  # two seeds left out at once: not known, so open
            unknown = bench.evaluate("([c, k, b]) => benchRule.judge(c, k, b, BENCH.t)", [case, [0], bounds])
            assert all(one["value"] is None for one in unknown["merged"].values())


def test_a_committed_verdict_is_the_ledgers(bench, site, source):
    cases = bench.evaluate("BENCH.cases.map(c => [c.id, c.verdict])")
    bench.goto(site + "claims.html", wait_until="load")
    shown = bench.eval_on_selector_all(
        "table.ledger tbody tr",
        "rows => rows.map(r => ['th', '.verdict'].map(part => r.querySelector(part).firstChild.textContent))",
    )
    assert sorted(map(tuple, cases)) == sorted(map(tuple, shown))


def test_what_would_flip_a_verdict_flips_it(bench):
    wrong = bench.evaluate(
        """() => BENCH.cases.flatMap(c => benchRule.flips(c, BENCH.t).map(f => {
            const bounds = benchRule.committed(c), all = benchRule.all(c);
            if (f.seed === undefined) bounds[f.condition] = f.bound;
            const kept = f.seed === undefined ? all : all.filter(k => c.seeds[k] !== f.seed);
            const { verdict } = benchRule.judge(c, kept, bounds, BENCH.t);
            return [c.key, verdict === f.verdict && verdict !== c.verdict];
        }))"""
    )
    assert len(wrong) > 20
    assert [key for key, flipped in wrong if not flipped] == []


def test_predicted_and_revealed_by_keyboard_alone_and_kept(bench, site, axe):
    claim = bench.locator("#bench-P2\\.4")
    claim.locator("summary").focus()
    bench.keyboard.press("Enter")
    card = claim.locator("[data-bench]")
    card.locator("form").wait_for()
    bench.keyboard.press("Tab")  # to the first of the six answers
    for _ in range(2):
        bench.keyboard.press("ArrowDown")
    bench.keyboard.press("Tab")
    bench.keyboard.press("Enter")
    verdict = bench.evaluate("BENCH.cases.find(c => c.key === 'P2.4').verdict")
    assert verdict in card.locator(".bench-now").inner_text()
    assert bench.evaluate("JSON.parse(localStorage.predictions)") == {"P2.4": "undecided"}
    assert axe(bench) == []
    bound = card.locator("input[type=range]").first
    bound.focus()
    before = bound.input_value()
    bench.keyboard.press("ArrowLeft")
    assert float(bound.input_value()) < float(before)
    bench.keyboard.press("Home")  # to the lowest bound, which every seed passes
    assert ": holds" in bound.get_attribute("aria-valuetext")
    bench.reload()
    claim.locator("summary").click()
    assert "undecided" in claim.locator(".bench-told").inner_text()


@idle_machine
def test_a_step_of_the_bench_takes_less_than_50_ms(bench):
    bench.evaluate("document.querySelectorAll('details.bench-claim').forEach(d => { d.open = true; })")
    bench.wait_for_selector("#bench-P5\\.1 form")
    bench.evaluate("document.querySelectorAll('form.bench-ask').forEach(f => f.requestSubmit())")
    longest = bench.evaluate(
        """() => Math.max(...[...document.querySelectorAll('#bench-P5\\\\.1 input[type=range]')].map(input => {
            const begun = performance.now();
            input.value = input.max; input.dispatchEvent(new Event('input'));
            return performance.now() - begun;
        }))"""
    )
    assert longest <= 50
