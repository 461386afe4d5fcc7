"""What the caller of notebooks/run passed: read as papermill reads it, and where such a run will lie."""

import base64
import re
import sys

import pytest
from tiny_paper import PAPER, SCHEMA, with_arms

from xai_utils.suite.passed import main, passed


def encoded(text):
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def papermill(monkeypatch):
    """What papermill itself would inject into a notebook that is run with these words."""
    cli = pytest.importorskip("papermill.cli", reason="the extra [notebook] is not installed")

    def parameters(words):
        given = []
        with monkeypatch.context() as patch:
            patch.setattr(cli, "execute_notebook", lambda **options: given.append(options["parameters"]))
            cli.papermill(["in.ipynb", "out.ipynb", *words], standalone_mode=False)
        return given[0]

    return parameters


VALUES = (
    "3",
    "-3",
    "1e-3",
    "3.0",
    "True",
    "False",
    "None",
    "true",
    "nan",
    "1_000",
    "0x10",
    "",
    "a b",
    "epochs: 3",
    "07",
)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("option", ["-p", "--parameters", "-r", "--parameters_raw"])
def test_a_name_and_a_value_are_what_papermill_makes_of_them(papermill, option, value):
    words = [option, "one", value, "-k", "python3", option, "two", "x"]
    found = passed(words)
    assert repr(found) == repr(papermill(words))
    if option.startswith(("-r", "--parameters_r")):
        assert found == {"one": value, "two": "x"}
    else:
        assert found["two"] == "x"


TEXT = "epochs: 3\nrate: 1.0e-4\nflip: true\nwidths: [1, 2]\nfolder: 2020-01-31\nnone: null\ntext: '3'\n"
READ = {
    **{"epochs": 3, "rate": 1e-4, "flip": True, "widths": [1, 2], "folder": "2020-01-31", "none": None, "text": "3"},
}


@pytest.mark.parametrize(
    ("short", "long"),
    [("-f", "--parameters_file"), ("-y", "--parameters_yaml"), ("-b", "--parameters_base64")],
)
def test_texts_and_files_are_what_papermill_makes_of_them(papermill, tmp_path, short, long):
    (tmp_path / "mine.yaml").write_text(TEXT)
    value = {"-f": str(tmp_path / "mine.yaml"), "-y": TEXT, "-b": encoded(TEXT)}[short]
    for words in ([short, value], [short + value], [long, value], [f"{long}={value}"]):
        words = ["--log-output", *words, "-k", "python3"]
        assert passed(words) == papermill(words) == READ, words


def test_attached_names_are_what_papermill_makes_of_them(papermill):
    words = ["-pepochs", "3", "--parameters=rate", "0.5", "-rtext", "3", "--parameters_raw=more", "4"]
    assert passed(words) == papermill(words) == {"epochs": 3, "rate": 0.5, "text": "3", "more": "4"}


def test_of_several_values_the_one_counts_that_papermill_takes(papermill, tmp_path):
    (tmp_path / "mine.yaml").write_text("a: 2\nb: 2\nc: 2\nd: 2")
    words = ["-r", "a", "5", "-p", "a", "4", "-p", "b", "4", "-y", "{a: 3, b: 3, c: 3}", "-y", "{c: 33}"]
    words += ["-f", str(tmp_path / "mine.yaml"), "-b", encoded("{a: 1, b: 1, c: 1, d: 1, e: 1}")]
    assert passed(words) == papermill(words) == {"a": "5", "b": 4, "c": 33, "d": 2, "e": 1}


def test_other_arguments_pass_nothing(papermill):
    words = ["-k", "python3", "--log-output", "--no-progress-bar", "--cwd", ".", "--start-timeout=5"]
    assert passed(words) == papermill(words) == {}
    assert passed([]) == {}
    assert passed(["-y", ""]) == passed(["-y", "# nothing"]) == passed(["--parameters_yaml="]) == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p"], "-p needs a name and a value, such as -p epochs 3"),
        (["-p", "epochs"], "-p needs a name and a value, such as -p epochs 3"),
        (["--parameters=epochs"], "--parameters needs a name and a value, such as --parameters epochs 3"),
        (["-repochs"], "-r needs a name and a value, such as -r epochs 3"),
        (["-f"], "-f needs a value, such as -f mine.yaml"),
        (["-k", "x", "--parameters_yaml"], "--parameters_yaml needs a value, such as --parameters_yaml 'epochs: 3'"),
        (["-b"], "-b needs a value, such as -b ZXBvY2hzOiAz"),
        (["-f", "nowhere.yaml"], "-f nowhere.yaml: there is no such file"),
        (["-y", "a: ["], "-y: not valid YAML: while parsing"),
        (["-y", "- a"], "-y holds list; expected lines such as epochs: 3"),
        (["-y", "epochs"], "-y holds str; expected lines such as epochs: 3"),
        (["-b", "a"], "-b: not valid YAML in base64: "),
        (["-b", encoded("a: [")], "-b: not valid YAML in base64: "),
    ],
)
def test_what_cannot_be_read_is_refused(words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        passed(words)


# --- the command --------------------------------------------------------------------------------------------------


def told(capsys, *arguments):
    """Exit status and the lines on standard output but for the environment, or those on standard error."""
    status = main(arguments)
    out, err = capsys.readouterr()
    assert (out == "") == (status == 2)
    assert (err == "") == (status == 0)
    lines = (out or err).splitlines()
    if status == 0:
        assert lines.pop() == sys.prefix
    return status, lines


def test_the_folder_and_the_names(repository, capsys):
    with_arms(repository)
    folder = repository / "results/quick" / PAPER
    assert told(capsys, PAPER, "quick", "", "0") == (0, [f"{folder}/main/seed_0", ""])
    assert told(capsys, PAPER, "quick", "improved", "3", "-k", "python3") == (0, [f"{folder}/improved/seed_3", ""])
    own = "-p", "flip", "False", "-p", "patience", "5"
    assert told(capsys, PAPER, "quick", "improved", "3", *own) == (
        0,
        [f"{folder}/improved+own/seed_3", "flip patience"],
    )
    same = "-p", "momentum", "0", "-y", "widths: [4, 2]", "-p", "device", "cpu"  # the arm's own, and where it runs
    assert told(capsys, PAPER, "quick", "improved", "3", *same) == (
        0,
        [f"{folder}/improved/seed_3", "widths momentum device"],
    )
    default = "-p", "learning_rate", "0.01"  # the notebook's default, and the profile has another
    assert told(capsys, PAPER, "quick", "main", "0", *default) == (0, [f"{folder}/main+own/seed_0", "learning_rate"])


def test_the_folder_follows_xai_results(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XAI_RESULTS", str(tmp_path / "elsewhere"))
    assert told(capsys, PAPER, "standard", "main", "7")[1][0] == f"{tmp_path}/elsewhere/standard/{PAPER}/main/seed_7"


def test_a_paper_without_arms_has_one(repository, capsys):
    lines = [line for line in SCHEMA.splitlines() if not line.startswith("arm:")]
    (repository / f"notebooks/parameters/{PAPER}.yaml").write_text("\n".join(lines))
    found = told(capsys, PAPER, "quick", "main", "0", "-p", "flip", "False")
    assert found == (0, [f"{repository}/results/quick/{PAPER}/main+own/seed_0", "flip"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "0", "-p", "profile", "standard"], "profile is the 2nd argument: notebooks/run PAPER PROFILE ARM SEED"),
        (["", "0", "-r", "arm", "improved"], "arm is the 3rd argument: notebooks/run PAPER PROFILE ARM SEED"),
        (["", "0", "-y", "seed: 3"], "seed is the 4th argument: notebooks/run PAPER PROFILE ARM SEED"),
        (["", "0", "-p", "flop", "1"], "flop = 1 (int): no such parameter; the closest is 'flip'."),
        (["", "0", "-p", "flip", "1"], "flip = 1 (int): expected bool. Change it."),
        (["", "0", "-r", "patience", "3"], "patience = '3' (str): expected int, at least 1 (or None)."),
        (["best", "0"], "arm = 'best' (str): expected str, one of 'main', 'improved'. Change it."),
        (["", "one"], "seed = 'one' (str): expected int, at least 0, at most 2147483647. Change it."),
        (["", "0", "-p", "flip"], "-p needs a name and a value, such as -p epochs 3"),
    ],
)
def test_wrong_arguments_end_before_anything_is_run(repository, capsys, arguments, message):
    with_arms(repository)
    status, lines = told(capsys, PAPER, "quick", *arguments)
    assert status == 2
    assert message in lines[-1]
    assert not lines[0].startswith("notebooks/profiles")
    assert not (repository / "results/quick").exists()


def test_too_few_arguments_or_an_unknown_paper(repository, capsys):
    assert "python -m xai_utils.suite.passed PAPER PROFILE ARM SEED" in "\n".join(told(capsys, PAPER, "quick")[1])
    status, (line,) = told(capsys, "09_none", "quick", "main", "0")
    assert status == 2
    assert line.startswith("no parameters for paper '09_none'")
