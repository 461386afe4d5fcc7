"""The generated blocks of the READMEs: a row per paper, folded tables of claims, and findings, from small trees."""

import pandas as pd
import pytest
import yaml
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


def test_the_table_of_papers_has_a_row_per_paper(root):
    for seed in (0, 1):
        write(root, seed, accuracy=98.1 + seed / 100)
        write(root, seed, arm="improved")
    lines = readme.papers_table().splitlines()
    assert len(lines) == 2 + len(claims.load().papers)
    assert f"](notebooks/{PAPER}.ipynb) | 2 reproduced, 1 partly, 1 not comparable |" in lines[2]
    assert "| accuracy: paper 98.13 %, ours 98.1050 ± 0.0071 % (mnist, 2 seeds)<br>" in lines[2]
    assert lines[2].endswith("<br>accuracy of the improved training: 99.1 ± 0 % (mnist, 2 seeds) |")
    assert all(line.endswith("| no notebook yet | |") for line in lines[3:])


def test_the_claims_stand_in_a_folded_table_per_paper(root):
    for seed in (0, 1):
        write(root, seed, accuracy=98.1 + seed / 100)
        write(root, seed, arm="improved")
    one = readme.claims_tables()
    assert one.startswith("<details><summary>Explaining an image classifier")
    assert one.count("<details>") == 1  # the other papers have no notebook here
    assert one.endswith("\n\n</details>")
    of = [[cell.strip() for cell in line.split("|")[1:-1]] for line in one.splitlines() if line.startswith("| ")][1:]
    assert of[0] == [
        "P1.1",
        "The test accuracy by eq. (1) is 98.13 %.",
        "accuracy 98.13 %",
        "accuracy 98.1050 ± 0.0071 %; 2 of 2 conditions hold",
        "mnist, 2 seeds",
        "reproduced",
    ]
    assert [row[0] for row in of].count("X1.2") == 2  # judged in two arms
    (main, improved) = (row for row in of if row[0] == "X1.2")
    assert (main[4], improved[4]) == ("main: mnist, 2 seeds", "improved: mnist, 2 seeds")
    assert (main[1] != "", improved[1]) == (True, "")  # what it says stands once


def test_a_headline_that_was_not_measured_is_left_out(root):
    write(root)  # no record of the arm of the second one
    (line,) = (line for line in readme.papers_table().splitlines() if line.startswith("| [Explaining"))
    assert line.endswith("| accuracy: paper 98.13 %, ours 98.4 % (mnist, 1 seed) |")


def test_a_headline_beside_a_paper_s_number_says_where_the_two_cannot_be_compared(root):
    write(root, dataset="digits")
    (line,) = (line for line in readme.papers_table().splitlines() if line.startswith("| [Explaining"))
    assert line.endswith("| accuracy: paper 98.13 %, ours 98.4 % (digits, 1 seed; not comparable) |")


def test_a_stale_claim_and_a_bar_in_a_statement_show_in_the_folded_table(root):
    file = root / "results/reported.yaml"
    file.write_text(file.read_text().replace("The test accuracy by eq. (1) is 98.13 %.", "The value |x| is 98.13 %."))
    module = root / "xai_utils/thing.py"
    module.parent.mkdir()
    module.write_text("x = 1\n")
    write(root, modules={"xai_utils/thing.py": "0" * 64})
    (line,) = (line for line in readme.claims_tables().splitlines() if line.startswith("| P1.1 "))
    assert line.startswith(r"| P1.1 | The value \|x\| is 98.13 %. |")
    assert line.endswith("| reproduced (stale) |")


def test_what_is_open_and_a_network_that_has_not_learned_stand_behind_the_verdict(root):
    write(root, accuracy=98.6, learned=89.0)
    lines = [line for line in readme.claims_tables().splitlines() if line.startswith("| P1.")]
    verdicts = {line.split(" | ")[0][2:]: line.rpartition(" | ")[2] for line in lines}
    said = "the network has not learned it: V1.validation_accuracy is 89 on validation images, it needs 90"
    assert verdicts == {
        "P1.1": "partly |", "P1.2": "not comparable |",
        "P1.3": f"not tested ({said}) |", "P1.4": f"not tested ({said}) |",
    }  # fmt: skip
    assert "P1.3" in lines[2]
    assert "; 3 of 3 conditions hold |" in lines[2]  # the two that hold by construction do not count
    write(root, 1, accuracy=98.4)
    write(root, 2, accuracy=98.2)
    (line,) = (line for line in readme.claims_tables().splitlines() if line.startswith("| P1.1 "))
    assert line.endswith("; 1 of 2 conditions hold, 1 open | mnist, 3 seeds | partly (open: accuracy) |")


SENTENCE = {
    "when": ["P1.1.accuracy > 98"],
    "en": "The accuracy is {P1.1.accuracy:value}.",
    "ja": "正解率は{P1.1.accuracy:value}である。",
}
MARKS = "<!-- {0}:begin -->\nold\n<!-- {0}:end -->\n"


@pytest.fixture
def pages(root):
    """A small checkout with findings, the two pages with their marks, and one record."""
    entry = {"arm": "main", "sentences": [SENTENCE]}
    content = {"surprise": entry | {"paper": PAPER}, "papers": {PAPER: entry}, "claims": {}}
    (root / "results/findings.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    (root / "README.md").write_text("above\n" + "between\n".join(map(MARKS.format, ("findings", "papers", "surprise"))))
    (root / "results/README.md").write_text(MARKS.format("claims") + "below\n")
    return root


def test_the_command_fills_the_blocks_between_the_marks_once(pages, capsys):
    write(pages)
    assert readme.main([]) == 0
    text = (pages / "README.md").read_text(encoding="utf-8")
    assert text == (
        "above\n<!-- findings:begin -->\n- **Paper 1.** The accuracy is 98.4 %.\n<!-- findings:end -->\nbetween\n"
        f"<!-- papers:begin -->\n{readme.papers_table()}\n<!-- papers:end -->\nbetween\n"
        "<!-- surprise:begin -->\nThe accuracy is 98.4 %.\n<!-- surprise:end -->\n"
    )
    below = (pages / "results/README.md").read_text(encoding="utf-8")
    assert below == f"<!-- claims:begin -->\n{readme.claims_tables()}\n<!-- claims:end -->\nbelow\n"
    assert readme.main([]) == 0
    assert (pages / "README.md").read_text(encoding="utf-8") == text
    assert capsys.readouterr().out.splitlines() == [
        "README.md: surprise, findings, papers changed",
        "results/README.md: claims changed",
        "README.md: surprise, findings, papers up to date",
        "results/README.md: claims up to date",
    ]


def test_an_untrue_finding_is_a_problem_and_leaves_the_pages_alone(pages, capsys):
    write(pages, accuracy=97.5)
    before = (pages / "README.md").read_text()
    assert readme.main([]) == 2
    assert capsys.readouterr().err.startswith(f"PROBLEM {PAPER}: `P1.1.accuracy > 98` does not hold")
    assert (pages / "README.md").read_text() == before


def test_the_command_names_a_record_that_cannot_be_used(pages, capsys):
    write(pages)
    half = write(pages, 1)
    half.write_text(half.read_text()[:200])
    assert readme.main([]) == 2
    assert f"PROBLEM {half}" in capsys.readouterr().err


def test_the_pages_show_the_committed_records_and_no_other_tree(pages, capsys, monkeypatch):
    write(pages)
    assert readme.main([]) == 0
    before = [(pages / name).read_bytes() for name in ("README.md", "results/README.md")]
    write(pages, results="other", accuracy=98.3)
    assert readme.main(["--results", "other"]) == 2
    assert "for another tree ask report" in capsys.readouterr().out
    monkeypatch.setenv("XAI_RESULTS", str(pages / "other"))
    assert readme.main([]) == 0
    assert [(pages / name).read_bytes() for name in ("README.md", "results/README.md")] == before


def test_a_page_without_marks_is_left_alone(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(MARKS.format("papers"))
    with pytest.raises(ValueError, match="claims:begin"):
        readme.update(path, {"papers": "new", "claims": "new"})
    assert path.read_text() == MARKS.format("papers")
