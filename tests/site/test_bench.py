"""The verdict bench: the rule in the page gives Python's verdicts, and the bench works by keyboard alone."""

import math

import pytest

from xai_utils.suite.findings import Source
from xai_utils.suite.over_seeds import aggregate


@pytest.fixture(scope="module")
def source():
    return Source()


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
    if len(everything) > 2:
        yield everything[:1], bounds
    for place, condition in enumerate(case["conditions"]):
        metric = case["metrics"][condition.get("difference") or condition["metric"]]
        numbers = [x for x in (*metric["values"], *metric["lows"], *metric["highs"]) if x is not None]
        for end in {min(numbers), max(numbers), sum(numbers) / len(numbers)} if numbers else ():
            for shift in (-1e-3, 1e-3, -10.0, 10.0):
                moved = list(bounds)
                moved[place] = end + shift * max(abs(end), 1e-3)
                yield everything, moved


def python_says(source, case, kept, bounds):
    stem = next(s for s in source.reported.papers if int(s[:2]) == int(case["paper"]))
    paper, records = source.reported.papers[stem], source.records(stem, case["arm"])
    claim = paper.judged[case["id"]]
    conditions = [
        c.model_copy(update={"margin" if c.other else "bound": bound})
        for c, bound in zip(claim.rule.conditions, bounds)
    ]
    rule = claim.rule.model_copy(update={"conditions": conditions})
    metrics = aggregate([records[k] for k in kept])
    gates = paper._gates(case["id"], records[0].subject)
    return rule.evaluate(claim.kind, metrics, records[0].subject, gates), metrics


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
    assert "verdict" in card.inner_html()
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
    for _ in range(400):
        bench.keyboard.press("ArrowLeft")
    assert float(bound.input_value()) < float(before)
    assert bound.get_attribute("aria-valuetext").endswith(("holds", "open"))
    bench.reload()
    claim.locator("summary").click()
    assert "undecided" in claim.locator(".bench-told").inner_text()


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
