"""No measured number is typed into the prose of a notebook or of README.md: it would go stale.

A decimal or a percentage stands there only if it is one of reported.yaml's (of that paper), of the paper's profiles or
parameters, in an equation or code, asserted by the code cell before or after it, or filled in from findings.yaml (the
blocks between marks). typed_numbers.yaml lists what was typed before this rule; the list may only shrink.
"""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LISTED = yaml.safe_load(Path(__file__).with_name("typed_numbers.yaml").read_text(encoding="utf-8"))
LONGEST = 0  # entries of the list; lower it whenever one goes
LEFT_OUT = re.compile(
    r"<!-- (\w+):begin -->.*?<!-- \1:end -->"  # filled in
    r"|```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$"  # code, equations
    r"|^#+ \d+(?:\.\d+)*|[Ss]ections? \d[\d.]*|95 %"  # numbers of headings; the level of every interval
    r"|\]\([^)]*\)|https?://\S+|§\s?\d[\d.]*|Python 3\.\d+(?:, 3\.\d+)*(?: or 3\.\d+)?",  # links, sections, versions
    re.DOTALL | re.MULTILINE,
)
NUMBER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)(?=(?:\s|&nbsp;|\\)?%)|(?<![\w.,])(\d+\.\d+)(?![\w.]*\d)")


def typed(prose, allowed):
    """The decimals and percentages of a text, without those whose value (in percent: a hundredth of it) is allowed."""
    plain = LEFT_OUT.sub(" ", prose)
    found = [(percent or decimal, bool(percent)) for percent, decimal in NUMBER.findall(plain)]
    near = {round(abs(number), 9) for number in allowed}
    return [
        number + " %" * percent
        for number, percent in found
        if round(float(number), 9) not in near and not (percent and round(float(number) / 100, 9) in near)
    ]


def numbers_of(text):
    """Every number that stands in a text of YAML."""
    return {float(number) for number in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?", text)}


def sources(stem):
    """The numbers of one paper in reported.yaml, and of its profiles and parameters."""
    reported = yaml.safe_load((ROOT / "results/reported.yaml").read_text(encoding="utf-8"))["papers"]
    texts = [yaml.safe_dump(reported[stem], allow_unicode=True, width=10_000)]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob(f"p*/**/{stem}.yaml")]
    return set().union(*map(numbers_of, texts))


def asserted(code):
    """The numbers that a cell's assertions hold."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Assert) or name.startswith("assert"):
            found |= {c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and type(c.value) in (int, float)}
    return found


def typed_in(cells, allowed):
    """The typed numbers of a notebook's prose; `cells`: (whether it is code, its source)."""
    found = []
    for place, (code, source) in enumerate(cells):
        if not code:
            before = next((text for is_code, text in reversed(cells[:place]) if is_code), "")
            after = next((text for is_code, text in cells[place + 1 :] if is_code), "")
            found += typed(source, allowed | asserted(before) | asserted(after))
    return found


def offenders():
    """File → the numbers that are typed in it."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("0*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        pairs = [(cell["cell_type"] == "code", "".join(cell["source"])) for cell in cells]
        found[path.name] = typed_in(pairs, sources(path.stem))
    everything = set().union(*(sources(path.stem) for path in (ROOT / "notebooks").glob("0*.ipynb")))
    found["README.md"] = typed((ROOT / "README.md").read_text(encoding="utf-8"), everything)
    return {name: numbers for name, numbers in found.items() if numbers}


def test_no_number_is_typed_that_is_not_listed_and_the_list_holds_no_other():
    found = offenders()
    more = {name: n for name in found if (n := surplus(found[name], LISTED.get(name, [])))}
    assert more == {}, "fill these from results/findings.yaml (run.finding), or assert them in the cell beside the text"
    gone = {name: n for name in LISTED if (n := surplus(LISTED[name], found.get(name, [])))}
    assert gone == {}, "these are typed no more: take them out of typed_numbers.yaml, and lower LONGEST"


def surplus(one, other):
    """What is in the first list more often than in the second."""
    return sorted({f"{number} ({one.count(number)}×)" for number in one if one.count(number) > other.count(number)})


def test_the_list_only_shrinks():
    assert sum(map(len, LISTED.values())) <= LONGEST


@pytest.mark.parametrize(
    ("prose", "expected"),
    [
        ("It gains 0.123 of accuracy.", ["0.123"]),
        ("In 61 % of the images, or 12.5% of them.", ["61 %", "12.5 %"]),
        ("A difference of −0.23, an area [0.61, 0.77].", ["0.23", "0.61", "0.77"]),
        ("The paper has 98.13 % and 0.05; 5 % is that, too.", []),
        ("Three of 17 images, 47,513 crops, 1/32, 4×4, 2026.", []),
        ("See §4.2.3, Python 3.11, 3.12 or 3.13, [a link](x-1.25.html), https://example.org/v1.25.", []),
        ("### 3.2 Training\nas in section 3.4, with 95 % intervals", []),
        ("`rate = 0.75` and $x = 0.75$ and $$y = 0.75\\%$$", []),
        ("```\n0.75\n```", []),
        ("<!-- papers:begin -->\n0.75\n<!-- papers:end -->\nand 0.75", ["0.75"]),
    ],
)
def test_what_counts_as_typed(prose, expected):
    assert typed(prose, {98.13, 0.05}) == expected


def test_a_worked_example_is_one_that_the_cell_beside_it_asserts():
    text, example = (
        "The share is 0.25, so 75 % are left, not 0.9.",
        "share = 1 / 4\nassert share == 0.25 and rest == 0.75",
    )
    close = "torch.testing.assert_close(share, torch.tensor([0.25, 0.75]))"
    print_only = "print(0.25, 0.75)"
    assert typed_in([(False, text), (True, example)], set()) == ["0.9"]
    assert typed_in([(True, close), (False, text), (True, "x = 1")], set()) == ["0.9"]
    assert typed_in([(False, text), (True, print_only), (True, example)], set()) == ["0.25", "75 %", "0.9"]


def test_numbers_of_a_paper_are_those_of_its_own_entries():
    assert {98.13, 1e-4, 124.0} <= sources("01_id_cvae_morphing")
    assert 98.13 not in sources("02_moram_regression")
