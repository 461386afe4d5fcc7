"""Parameters: what a schema may say, what a notebook may hand in, and which of several values counts."""

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_paper import GOOD, PAPER, SCHEMA, rewrite, with_arms

from xai_utils.suite import parameters
from xai_utils.suite.parameters import PASSED, Effective, arms, planned, resolve, schema
from xai_utils.suite.record import run_folder

CHECKOUT = Path(__file__).parents[3]
PAPERS = sorted(path.stem for path in (CHECKOUT / "notebooks/parameters").glob("*.yaml"))


# --- what a notebook hands in ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("repository")
def test_a_notebooks_names_are_checked_and_take_their_types():
    names = {
        **GOOD,
        "widths": (8, 16),
        "learning_rate": 1,
        **{"_": 5, "_i1": "x = 1", "__name__": "__main__", "In": ["x = 1"], "Out": {}, "exit": object()},
        **{"np": np, "Path": Path, "table": {"a": 1}, "tensor": torch.zeros(1), "mixed": [1, {}]},
    }
    found = parameters.validate(PAPER, names)
    assert found == {**GOOD, "widths": (8, 16), "learning_rate": 1.0}
    assert type(found["learning_rate"]) is float
    assert list(found) == list(parameters.schema(PAPER).parameters)


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("seed", 0.001, "seed = 0.001 (float): expected int, at least 0, at most 2147483647."),
        ("seed", 1.0, "seed = 1.0 (float): expected int"),
        ("seed", True, "seed = True (bool): expected int"),
        ("seed", "1", "seed = '1' (str): expected int"),
        ("seed", -1, "seed = -1 (int): expected int, at least 0"),
        ("seed", 2**31, "at most 2147483647"),
        ("seed", None, "seed = None (NoneType): expected int"),
        ("seed", np.zeros(2), "(ndarray): expected int"),
        ("learning_rate", "1e-4", "learning_rate = '1e-4' (str): expected float, above 0, at most 1. Change it. "
         "(YAML reads 1e-4 as text: write 1.0e-4.)"),
        ("learning_rate", "2.5E3", "write 2.5e+3"),
        ("learning_rate", 0.0, "expected float, above 0"),
        ("learning_rate", 1.0001, "at most 1."),
        ("learning_rate", math.nan, "learning_rate = nan (float)"),
        ("learning_rate", True, "learning_rate = True (bool)"),
        ("momentum", 1.0, "momentum = 1.0 (float): expected float, at least 0, below 1."),
        ("momentum", -0.1, "momentum = -0.1"),
        ("patience", 0, "patience = 0 (int): expected int, at least 1 (or None)."),
        ("profile", "fast", "profile = 'fast' (str): expected str, one of 'quick', 'standard'."),
        ("flip", 1, "flip = 1 (int): expected bool."),
        ("widths", 8, "widths = 8 (int): expected list of int, at least 1."),
        ("widths", [8, 0], "widths = [8, 0] (list): expected list of int, at least 1."),
        ("widths", (8, "16"), "expected list of int"),
        ("learning_rat", 0.1, "learning_rat = 0.1 (float): no such parameter; the closest is 'learning_rate'."),
        ("sede", [1, 2], "sede = [1, 2] (list): no such parameter; the closest is 'seed'."),
        ("stray", None, "stray = None (NoneType): no such parameter"),
        ("xqz", 1, "xqz = 1 (int): no such parameter. Leave it out; the file named above lists all."),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named_with_what_was_expected(name, value, expected):
    with pytest.raises(ValueError, match="1 wrong parameter") as caught:
        parameters.validate(PAPER, GOOD | {name: value})
    assert expected in str(caught.value)
    assert f"notebooks/parameters/{PAPER}.yaml" in str(caught.value)


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(("name", "value"), [("seed", 0), ("seed", 2**31 - 1), ("learning_rate", 1.0), ("momentum", 0)])
def test_closed_bounds_are_allowed(name, value):
    assert parameters.validate(PAPER, GOOD | {name: value})[name] == value


@pytest.mark.usefixtures("repository")
def test_one_error_lists_every_problem():
    names = GOOD | {"seed": True, "learning_rate": "1e-4", "epochs": 3, "widths": [0, 0, "x"]}
    del names["flip"], names["profile"]
    with pytest.raises(ValueError, match="6 wrong parameter") as caught:
        parameters.validate(PAPER, names)
    lines = str(caught.value).splitlines()
    assert len(lines) == 7
    assert sorted(line.split()[0].rstrip(":") for line in lines[1:]) == [
        *("epochs", "flip", "learning_rate", "profile", "seed", "widths"),
    ]
    assert "flip: missing; expected bool. Set it in the cell tagged parameters." in str(caught.value)


# --- the schema -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: {type: int, default: 0, help: h, minimun: 0}", "seed.minimun: Extra inputs are not permitted"),
        ("seed: {type: integer, default: 0, help: h}", "seed.type: Input should be 'str', 'int', 'float' or 'bool'"),
        ("seed: {type: int, default: 0}", "seed.help: Field required"),
        ("seed: {type: int, help: h}", "seed.default: Field required"),
        ("seed: {type: int, default: '0', help: h}", "default is '0'; expected int"),
        ("seed: {type: int, default: -1, minimum: 0, help: h}", "default is -1; expected int, at least 0"),
        ("seed: {type: str, default: b, choices: [a], help: h}", "default is 'b'; expected str, one of 'a'"),
        ("seed: {type: int, default: null, help: h}", "default is None; expected int"),
        ("seed: {type: int, default: 3, list: true, help: h}", "default is 3; expected list of int"),
        ("seed: {type: float, default: 0, help: h, choices: [1]}", "every choice must be of type float"),
        ("seed: {type: str, default: a, help: h, minimum: 1}", "type str takes no minimum"),
        ("seed: {type: int, default: 0, help: h, minimum: '0'}", "seed.minimum: Input should be a valid number"),
        ("seed: [", "is not valid YAML"),
        ("", "is not valid"),
        ("seed: {type: int, default: 0, help: h}", "lacks profile"),
    ],
)
def test_the_schema_itself_is_checked(repository, text, message):
    rewrite(repository / f"notebooks/parameters/{PAPER}.yaml", text)
    with pytest.raises(ValueError, match=f"{PAPER}.yaml") as caught:
        parameters.schema(PAPER)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arms: [main, improved]\n", r"arms of .*\.yaml is not valid; correct it:\n.*valid dictionary"),
        ("arms:\n", r"arms of .*\.yaml is not valid; correct it:\n.*valid dictionary"),
        ("arms: {main: 0.5}\n", r"main: Input should be a valid dictionary \(got 0.5\)"),
        ("arms: {main: {contrast: {a: 1}}}\n", r"main\.contrast"),
        ("arms: {}\n", r"arm\.choices: List should have at least 1 item"),
        ("arms: {main: {seed: 1, arm: b, widths: [1]}}\n", r"arm main sets arm, seed; no arm may\."),
        ("arms: {main: {widths: [0]}}\n", r"widths = \[0\] \(list\): expected list of int, at least 1"),
        ("arms: {main: {learning_rate: 1e-4}}\n", r"learning_rate = '1e-4' .*write 1\.0e-4"),
    ],
)
def test_arms_that_are_no_mapping_of_settings(repository, text, message):
    with_arms(repository, text)
    with pytest.raises(ValueError, match=message):
        parameters.schema(PAPER)


def test_a_schema_is_read_again_when_it_has_changed(repository):
    assert list(parameters.schema(PAPER).parameters) == list(GOOD)
    assert parameters.arms(PAPER) == ["main"]
    with_arms(repository)
    known = parameters.schema(PAPER)
    assert parameters.arms(PAPER) == list(known.arms) == ["main", "improved"]
    assert known.parameters["arm"].choices == ["main", "improved"]
    assert known.parameters["arm"].default == "main"
    assert known.settings("improved") == {"contrast": 10.0, "shift": 1, "schedule": None}
    assert known.settings("nowhere") == {}


def test_a_paper_without_a_schema_is_refused_with_those_that_have_one(repository):
    (repository / "notebooks/parameters/05_lrp_bn.yaml").write_text(SCHEMA)
    for call in (parameters.schema, parameters.arms, lambda paper: parameters.validate(paper, GOOD)):
        with pytest.raises(FileNotFoundError, match=f"'06_x'.*Papers that have one: {PAPER}, 05_lrp_bn"):
            call("06_x")


def test_defaults_and_profiles(repository, tmp_path):
    assert parameters.defaults(parameters.schema(PAPER)) == GOOD | {
        **{"seed": 0, "device": "auto", "learning_rate": 0.01, "widths": (8, 16)},
    }
    path = repository / f"notebooks/profiles/quick/{PAPER}.yaml"
    path.write_text("widths: [4]\nflip: false\n")
    assert parameters.profile_values(PAPER, "quick") == {"widths": (4,), "flip": False}
    assert parameters.profile_values(PAPER, "paper") == {}
    path.write_text("# nothing yet\n")
    assert parameters.profile_values(PAPER, "quick") == {}
    for text, message in (("a: [", "is not valid YAML"), ("- a", "holds list; expected lines such as `epochs: 6`")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message) as caught:
            parameters.profile_values(PAPER, "quick")
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no parameters for paper"):
        parameters.planned(PAPER, "quick", "main", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 1e-4", "learning_rate = '1e-4' (str): expected float, above 0, at most 1."),
        ("widths: [0]", "widths = [0] (list): expected list of int, at least 1."),
        ("lerning_rate: 0.1", "lerning_rate = 0.1 (float): no such parameter; the closest is 'learning_rate'."),
    ],
)
def test_a_wrong_value_of_a_profile_is_never_taken(repository, text, message):
    path = f"notebooks/profiles/quick/{PAPER}.yaml"
    (repository / path).write_text(text)
    for call in (lambda: parameters.resolve(PAPER, GOOD, []), lambda: parameters.planned(PAPER, "quick", "main")):
        with pytest.raises(ValueError, match="1 wrong parameter") as caught:
            call()
        assert str(caught.value).startswith(f"{path}: ")
        assert message in str(caught.value)


def test_values_of_profiles_and_arms_take_the_parameters_types(repository):
    (repository / f"notebooks/profiles/quick/{PAPER}.yaml").write_text("learning_rate: 1")
    with_arms(repository)
    for found in (
        parameters.planned(PAPER, "quick", "improved"),
        parameters.resolve(PAPER, GOOD | {"arm": "improved"}, []).values,
    ):
        assert (found["learning_rate"], found["momentum"]) == (1.0, 0.0)
        assert [type(found[name]) for name in ("learning_rate", "momentum", "widths")] == [float, float, tuple]


# --- which value counts -------------------------------------------------------------------------------------------


def in_order(repository):
    """A parameter each that default, profile and arm have the last word on: patience, learning_rate, widths."""
    with_arms(repository)
    (repository / f"notebooks/profiles/quick/{PAPER}.yaml").write_text("learning_rate: 0.5\nwidths: [5]\n")
    return GOOD | {"arm": "improved", "learning_rate": 0.01}


def test_default_profile_arm_and_what_is_passed_in_this_order(repository):
    names = in_order(repository)
    standing = {"patience": None, "learning_rate": 0.5, "widths": (4, 2), "momentum": 0.0}
    assert parameters.planned(PAPER, "quick", "improved") == {
        **(GOOD | {"seed": 0, "device": "auto", "arm": "improved"} | standing),
        **{"contrast": 10.0, "shift": 1, "schedule": None},
    }
    assert parameters.planned(PAPER, "quick", "main")["widths"] == (5,)
    assert parameters.planned(PAPER, "standard", "main")["widths"] == (8, 16)
    found = parameters.resolve(PAPER, names, [])
    assert found.values == names | standing
    assert found.overrides == ()
    mine = {"patience": 7, "learning_rate": 0.25, "widths": (3,), "momentum": 0.75}
    found = parameters.resolve(PAPER, names | mine, list(mine))
    assert found.values == names | mine
    assert found.overrides == ("learning_rate", "momentum", "patience", "widths")
    assert found.replaced == {}
    for name in mine:
        found = parameters.resolve(PAPER, names | mine, {name})
        assert found.values == names | standing | {name: mine[name]}
        assert found.overrides == (name,)
        assert found.replaced.keys() == mine.keys() - {name}


def test_who_replaced_a_value_is_said(repository):
    names = in_order(repository) | {"patience": 7, "flip": False}
    assert parameters.resolve(PAPER, names, ["flip"]) == Effective(
        values=names | {"patience": None, "learning_rate": 0.5, "widths": (4, 2), "momentum": 0.0},
        replaced={
            "patience": (7, "default"),
            "learning_rate": (0.01, "profile quick"),
            "widths": ((8, 16), "arm improved"),
            "momentum": (0.9, "arm improved"),
        },
        overrides=("flip",),
    )


def test_which_run_it_is_and_where_overrides_nothing(repository):
    names = GOOD | {"profile": "standard", "seed": 9, "device": "cpu"}
    found = parameters.resolve(PAPER, names, ["profile", "arm", "seed", "device", "no parameter"])
    assert (found.overrides, found.replaced) == ((), {})
    assert [found.values[name] for name in ("profile", "arm", "seed", "device")] == ["standard", "main", 9, "cpu"]


def test_what_was_passed_is_read_from_the_runner(repository, monkeypatch):
    names = in_order(repository) | {"patience": 7}
    monkeypatch.setenv(PASSED, "patience widths")
    assert parameters.resolve(PAPER, names).overrides == ("patience", "widths")
    monkeypatch.setenv(PASSED, "")
    found = parameters.resolve(PAPER, names)
    assert (found.overrides, found.values["patience"], found.values["widths"]) == ((), None, (4, 2))


def test_without_a_runner_what_differs_from_default_and_profile_was_passed(repository):
    names = in_order(repository)
    assert parameters.resolve(PAPER, names).overrides == ()
    profile = names | {"learning_rate": 0.5, "widths": (5,)}  # as plain papermill hands them in: -f the profile
    for given in (names, profile):
        found = parameters.resolve(PAPER, given | {"patience": 7, "momentum": 0.5})
        assert found.overrides == ("momentum", "patience")
        assert found.values["learning_rate"] == 0.5
        assert found.values["widths"] == (4, 2)
    # the arm's value replaces one that equals the profile's or the default, and says so
    assert parameters.resolve(PAPER, profile).replaced["widths"] == ((5,), "arm improved")
    assert parameters.resolve(PAPER, names).replaced["widths"] == ((8, 16), "arm improved")
    # and the profile's replaces the default
    assert parameters.resolve(PAPER, names | {"arm": "main"}).replaced == {
        "learning_rate": (0.01, "profile quick"),
        "widths": ((8, 16), "profile quick"),
    }


def test_the_name_of_a_profile_is_enough(repository):
    (repository / f"notebooks/profiles/standard/{PAPER}.yaml").write_text("learning_rate: 0.25\npatience: 3\n")
    cell = parameters.defaults(parameters.schema(PAPER))
    found = parameters.resolve(PAPER, cell | {"profile": "standard"})
    assert found.values == cell | {"profile": "standard", "learning_rate": 0.25, "patience": 3}
    assert found.overrides == ()


def test_names_for_which_other_values_hold_now(repository):
    with_arms(repository)
    made_with = GOOD | {"arm": "improved", "widths": [4, 2], "momentum": 0.0, "contrast": 5.0}
    assert parameters.differing(PAPER, "quick", "improved", made_with) == []
    other = made_with | {"seed": 9, "device": "cuda", "flip": False, "widths": [4], "gone": 3}
    assert parameters.differing(PAPER, "quick", "improved", other) == ["widths", "flip"]
    assert parameters.differing(PAPER, "quick", "main", made_with) == ["momentum", "widths"]


# --- the five papers ----------------------------------------------------------------------------------------------


@pytest.fixture
def real(monkeypatch, tmp_path):
    """The repository itself, with results elsewhere."""
    for name in ("XAI_ROOT", PASSED):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XAI_RESULTS", str(tmp_path))
    return tmp_path


def cell_of(paper):
    """The values in the notebook's cell that is tagged parameters."""
    cells = json.loads((CHECKOUT / f"notebooks/{paper}.ipynb").read_text())["cells"]
    (source,) = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    values = {}
    for node in ast.parse(source).body:
        value = ast.literal_eval(node.value)
        names = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(names, ast.Tuple):
            values |= dict(zip((name.id for name in names.elts), value, strict=True))
        else:
            values[names.id] = value
    return values


def test_there_are_five_papers():
    assert len(PAPERS) == 5
    assert [path.stem for path in sorted((CHECKOUT / "notebooks").glob("[0-9]*.ipynb"))] == PAPERS


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("paper", PAPERS)
def test_the_schemas_defaults_are_the_notebooks_own(paper):
    cell, known = cell_of(paper), parameters.defaults(parameters.schema(paper))
    assert known == cell
    assert {name: type(value) for name, value in known.items()} == {name: type(v) for name, v in cell.items()}


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("paper", PAPERS)
def test_every_profile_and_arm_of_a_paper_can_be_planned(paper):
    profiles = [path.parent.name for path in (CHECKOUT / "notebooks/profiles").glob(f"*/{paper}.yaml")]
    assert sorted(profiles) == ["paper", "quick", "standard"]
    for profile in profiles:
        for arm in parameters.arms(paper):
            planned = parameters.planned(paper, profile, arm)
            found = parameters.resolve(paper, cell_of(paper) | {"profile": profile, "arm": arm})
            assert found.values == {name: planned[name] for name in found.values}
            assert found.overrides == ()


def arm_cases():
    for paper in PAPERS:
        known = parameters.schema(paper, CHECKOUT)
        for arm, sets in known.arms.items():
            for name in sets:
                if name in known.parameters:
                    yield paper, arm, name


CASES = list(arm_cases())


def other_value(entry, arms_own, taken):
    """A value that the parameter may have and the arm has not; one of `taken` only if there is no other."""
    least = max(1, int(entry.minimum or 1))
    numbers = {"int": range(least, least + 50), "float": map(float, range(least, least + 50)), "bool": (True, False)}
    free = [value for value in entry.choices or numbers[entry.kind] if value != arms_own]
    return next((value for value in free if value not in taken), free[0])


def test_there_are_38_cases():
    assert len(CASES) == 38


@pytest.mark.parametrize("profile", ["quick", "standard"])
@pytest.mark.parametrize(("paper", "arm", "name"), CASES)
def test_a_parameter_that_an_arm_sets_can_be_overridden_and_else_the_arms_counts(real, paper, arm, name, profile):
    known = parameters.schema(paper)
    own, sets, cell = parameters.profile_values(paper, profile), known.arms[arm], cell_of(paper)
    before = own.get(name, cell[name])  # what the notebook holds when papermill has given it the profile
    given = cell | own | {"profile": profile, "arm": arm}

    for passed in ([], None):
        found = parameters.resolve(paper, given, passed)
        assert found.values[name] == sets[name]
        assert found.overrides == ()
        assert found.replaced.get(name) == (None if before == sets[name] else (before, f"arm {arm}"))
        assert run_folder(profile, paper, arm, 0, bool(found.overrides)).parent.name == arm

    mine = other_value(known.parameters[name], sets[name], [cell[name], before])
    found = parameters.resolve(paper, given | {name: mine}, [name])
    assert found.values[name] == mine
    assert found.overrides == (name,)
    assert name not in found.replaced
    assert all(found.values[other] == sets[other] for other in sets.keys() & known.parameters.keys() - {name})
    folder = run_folder(profile, paper, arm, 0, bool(found.overrides))
    assert folder == real / profile / paper / f"{arm}+own" / "seed_0"

    bare = parameters.resolve(paper, given | {name: mine})  # plain papermill, and Jupyter
    if mine in (cell[name], before):  # cannot be told from one that nobody passed: it is replaced, and that is said
        assert (bare.values[name], bare.replaced[name]) == (sets[name], (mine, f"arm {arm}"))
    else:
        assert bare == found

    found = parameters.resolve(paper, given | {name: sets[name]}, [name])  # passed, and the arm's own
    assert (found.values[name], found.overrides) == (sets[name], ())


# names beside the parameters --------------------------------------------------------------------------------------


def test_in_jupyter_only_what_the_parameters_cell_sets_counts():
    paper = "01_id_cvae_morphing"
    values = parameters.defaults(parameters.schema(paper))
    cell = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    later = {"columns": ["value"], "accuracy": 98.2, "pi": 3.14, "e": 2.7}  # of other cells, and of a startup file
    history = [
        "",
        cell,
        "accuracy = run.measure('P1.1.accuracy', 98.2)",
        "from math import *",
        "columns = table.columns",
    ]
    assert parameters.validate(paper, values | later | {"In": history, "Out": {}}) == values
    for wrong in (
        "epoch = 3",
        "# Parameters\nepochs = 3\nepoch: int = 3",
        "epochs, epoch = 3, 3",
        '"""Text."""\nepoch = 3',
    ):
        names = values | later | {"epoch": 3, "In": [*history, wrong]}
        with pytest.raises(ValueError, match=r"epoch = 3 \(int\): no such parameter; the closest is 'epochs'"):
            parameters.validate(paper, names)
    with pytest.raises(ValueError, match="no such parameter"):  # without IPython every plain name counts
        parameters.validate(paper, values | {"epoch": 3})


@pytest.mark.parametrize("value", [7, 0.5, True, None])
def test_a_text_that_papermill_read_as_a_number_names_the_way_out(value):
    paper = "01_id_cvae_morphing"
    names = parameters.defaults(parameters.schema(paper)) | {"folder": value}
    with pytest.raises(ValueError, match=r"folder = .*: expected str.*write -r folder to keep the text"):
        parameters.validate(paper, names)


# your own images -----------------------------------------------------------------------------------------------

WORDS = {paper: {"02_moram_regression": None, "04_cam_consistency": "source"}.get(paper, "dataset") for paper in PAPERS}


def own(paper, profile="quick", arm=None, **passed):
    names = planned(paper, profile, arm or arms(paper)[0])
    names = {name: names[name] for name in schema(paper).parameters}
    return resolve(paper, names | {"arm": arm or arms(paper)[0], "profile": profile} | passed, passed)


@pytest.mark.parametrize("profile", ["quick", "standard"])
@pytest.mark.parametrize("paper", PAPERS)
def test_a_folder_alone_means_your_own_images_in_every_paper(paper, profile):
    found = own(paper, profile, folder="/my/images", group_by="prefix:3", square="stretch")
    assert found.values["folder"] == "/my/images"
    assert (found.values["group_by"], found.values["square"]) == ("prefix:3", "stretch")
    assert "folder" in found.overrides
    if word := WORDS[paper]:
        assert found.values[word] == "folder"
        assert found.replaced[word][1] == "folder"
        again = own(paper, profile, folder="/my/images", **{word: "folder"})
        assert again.values[word] == "folder"
        assert word not in again.replaced


@pytest.mark.parametrize("paper", [paper for paper in PAPERS if WORDS[paper]])
def test_a_folder_and_another_data_set_contradict_each_other(paper):
    word = WORDS[paper]
    other = schema(paper).parameters[word].default
    with pytest.raises(ValueError, match=rf"folder = '/my/images' does not go with {word}, which is '{other}': leave"):
        own(paper, folder="/my/images", **{word: other})
    with pytest.raises(ValueError, match=rf"{word} is 'folder', and folder is not given: pass it, -p folder"):
        own(paper, **{word: "folder"})


def test_a_folder_and_an_arm_of_another_data_set_contradict_each_other():
    text = r"does not go with source, which is 'stanford_cars' in arm stanford_cars"
    with pytest.raises(ValueError, match=text):
        own("04_cam_consistency", arm="stanford_cars", folder="/my/images")


def test_rdc_takes_the_folder_too():
    assert own("05_lrp_bn", dataset="rdc", folder="/rdd").values["dataset"] == "rdc"
    with pytest.raises(ValueError, match="dataset is 'rdc', and folder is not given"):
        own("05_lrp_bn", dataset="rdc")


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize(("name", "value"), [("masks", "masks"), ("group_by", "prefix:3"), ("square", "crop")])
def test_what_belongs_to_a_folder_does_not_go_without_one(paper, name, value):
    if name in schema(paper).parameters:
        with pytest.raises(ValueError, match=rf"{name} = '{value}' does nothing without folder: pass that, too"):
            own(paper, **{name: value})


@pytest.mark.parametrize(("paper", "word"), [("02_moram_regression", "dataset"), ("04_cam_consistency", "dataset")])
def test_another_papers_word_for_your_own_images_is_explained(paper, word):
    with pytest.raises(ValueError, match=r"no such parameter.*Your own images are read from -p folder /path/to/images"):
        own(paper, folder="/my/images", **{word: "folder"})
