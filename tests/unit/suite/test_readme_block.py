"""The README's block: a row per paper and a folded table of claims, from small results trees."""

import pandas as pd
import pytest
from small_records import PAPER, small_checkout, write

from xai_utils.suite import claims, readme


@pytest.fixture
def root(tmp_path, monkeypatch):
    return small_checkout(tmp_path, monkeypatch)


def test_the_state_of_a_paper_counts_claims_and_not_arms():
    verdicts = {
        "P4.1": ["reproduced", "no record", "reproduced", "not tested"],
        "P4.2": ["partly", "not reproduced"],
        "P4.3": ["no record", "not tested"],
        "P4.4": ["no record"],
        "P4.5": ["reproduced"],
    }
    rows = pd.DataFrame(
        [(claim, verdict) for claim, found in verdicts.items() for verdict in found],
        columns=["claim", "standard_verdict"],
    )
    assert readme._state(rows) == "2 reproduced, 1 not tested, 1 mixed, 1 no record"


def test_the_readme_table_has_a_row_per_paper_and_a_folded_one_per_claim(root):
    for seed in (0, 1):
        write(root, seed, accuracy=98.4 + seed / 10)
        write(root, seed, arm="improved")
    table, *folded = readme.readme_table().split("\n\n<details>")
    lines = table.splitlines()
    assert len(lines) == 2 + len(claims.load().papers)
    assert f"](notebooks/{PAPER}.ipynb) | 2 reproduced, 1 partly, 1 not comparable |" in lines[2]
    assert "| accuracy: paper 98.13 %, ours 98.450 ± 0.071 % (mnist, 2 seeds)<br>" in lines[2]
    assert lines[2].endswith("<br>accuracy of the improved training: 99.1 ± 0 % (mnist, 2 seeds) |")
    assert all(line.endswith("| no notebook yet | |") for line in lines[3:])
    (one,) = folded
    assert one.endswith("\n\n</details>")
    of = [[cell.strip() for cell in line.split("|")[1:-1]] for line in one.splitlines() if line.startswith("| ")][1:]
    assert of[0] == [
        "P1.1",
        "The test accuracy by eq. (1) is 98.13 %.",
        "accuracy 98.13 %",
        "accuracy 98.450 ± 0.071 %; 2 of 2 conditions hold",
        "mnist, 2 seeds",
        "reproduced",
    ]
    assert [row[0] for row in of].count("X1.2") == 2  # judged in two arms
    (main, improved) = (row for row in of if row[0] == "X1.2")
    assert (main[4], improved[4]) == ("main: mnist, 2 seeds", "improved: mnist, 2 seeds")
    assert (main[1] != "", improved[1]) == (True, "")  # what it says stands once


def test_a_headline_that_was_not_measured_is_left_out(root):
    write(root)  # no record of the arm of the second one
    (line,) = (line for line in readme.readme_table().splitlines() if line.startswith("| [Explaining"))
    assert line.endswith("| accuracy: paper 98.13 %, ours 98.4 % (mnist, 1 seed) |")


def test_a_headline_beside_a_paper_s_number_says_where_the_two_cannot_be_compared(root):
    write(root, dataset="digits")
    (line,) = (line for line in readme.readme_table().splitlines() if line.startswith("| [Explaining"))
    assert line.endswith("| accuracy: paper 98.13 %, ours 98.4 % (digits, 1 seed; not comparable) |")


def test_a_stale_claim_and_a_bar_in_a_statement_show_in_the_folded_table(root):
    file = root / "results/reported.yaml"
    file.write_text(file.read_text().replace("The test accuracy by eq. (1) is 98.13 %.", "The value |x| is 98.13 %."))
    module = root / "xai_utils/thing.py"
    module.parent.mkdir()
    module.write_text("x = 1\n")
    write(root, modules={"xai_utils/thing.py": "0" * 64})
    (line,) = (line for line in readme.readme_table().splitlines() if line.startswith("| P1.1 "))
    assert line.startswith(r"| P1.1 | The value \|x\| is 98.13 %. |")
    assert line.endswith("| reproduced (stale) |")


def test_the_command_fills_the_block_between_the_marks_once(root, capsys):
    write(root)
    page = root / "README.md"
    page.write_text("above\n<!-- papers:begin -->\nold\n<!-- papers:end -->\nbelow\n")
    assert readme.main([]) == 0
    text = page.read_text()
    assert text == f"above\n<!-- papers:begin -->\n{readme.readme_table()}\n<!-- papers:end -->\nbelow\n"
    assert readme.main([]) == 0
    assert page.read_text() == text
    assert capsys.readouterr().out.splitlines() == [
        "README.md: table of papers changed",
        "README.md: table of papers is up to date",
    ]


def test_the_command_names_a_record_that_cannot_be_used(root, capsys):
    half = write(root)
    half.write_text(half.read_text()[:200])
    (root / "README.md").write_text("<!-- papers:begin -->\n<!-- papers:end -->\n")
    assert readme.main([]) == 2
    assert f"PROBLEM {half}" in capsys.readouterr().err


def test_a_readme_without_marks_is_left_alone(root, tmp_path):
    path = tmp_path / "README.md"
    path.write_text("no marks")
    with pytest.raises(ValueError, match="papers:begin"):
        readme.update_readme(path)
    assert path.read_text() == "no marks"
