"""A parameter that an arm sets, passed with another value: it is what runs, and the arm's own record stays."""

from runs import PAPERS, given, notebooks_run, seed_folder

from xai_utils import suite

PAPER, ARM = PAPERS[3], "grad_cam_20"  # the arm sets per_class: 20


def test_own_values_go_over_those_of_the_arm(home, tmp_path):
    results = tmp_path / "results"
    (arms_own := seed_folder(results, arm=ARM, paper=PAPER)).mkdir(parents=True)
    (arms_own / "record.json").write_text("of the arm")
    own = {"per_class": 8, "steps": 4, "images": 120, "compared": 4}
    done = notebooks_run(home, results, PAPER, "quick", ARM, 0, *given(**own))
    assert done.returncode == 0, done.stdout + done.stderr

    folder = seed_folder(results, arm=f"{ARM}+own", paper=PAPER)
    record = suite.load_record(folder)
    assert (record.arm, record.overrides) == (f"{ARM}+own", ["compared", "images", "per_class", "steps"])
    assert {name: record.parameters[name] for name in own} == own
    assert record.parameters["arm"] == record.subject["arm"] == ARM
    assert record.settings == {"loss": "grad_cam"}
    shown = (folder / "notebook.ipynb").read_text()
    said = "compared = 4, images = 120, per_class = 8, steps = 4: not what profile quick and arm grad_cam_20 say"
    for text in (said, "2 classes · to train on 16 · to judge by 92", " 4 epochs of 16 images"):
        assert text in shown, text
    assert record.metrics["P4.1.wrong"].value + record.metrics["P4.1.correct"].value == 92

    assert [path.name for path in arms_own.iterdir()] == ["record.json"]
    assert (arms_own / "record.json").read_text() == "of the arm"
