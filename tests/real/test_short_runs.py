"""Every notebook on its real data, a few steps at the standard profile: what a user of `$XAI_DATA` gets."""

import os

import pytest
import yaml
from runs import PAPERS, ROOT, given, notebooks_run, seed_folder

from xai_utils import suite
from xai_utils.data import store
from xai_utils.suite import claims, rules

# for each notebook and each of its arms: on which data set (None: generated), what the record calls it, and a claim
# that is judged; the sizes that make a run short are those of notebooks/smoke.yaml, unless `few` adds to them
SHORT = yaml.safe_load((ROOT / "notebooks/smoke.yaml").read_text(encoding="utf-8"))
MNIST = {"dataset": "mnist", "sources": ["mnist"], "claim": "P1.1"}
TILES = {"dataset": "magnetic_tiles", "sources": ["magnetic_tiles"], "claim": "X3.1"}
VIEWS = {"dataset": None, "claim": "P4.4", "few": {"per_class": 10}}
REAL = {
    PAPERS[0]: {"main": MNIST, "improved": MNIST | {"claim": "X1.1"}},
    "02_moram_regression": {
        "rectangles": {"dataset": None, "sources": ["rectangles"] * 2, "claim": "P2.4"},
        "rotated_digits": {"dataset": "mnist", "sources": ["rotated_mnist"], "claim": "X2.1"},
    },
    "03_gradcam_defects": {
        "main": TILES,
        "patches": TILES | {"claim": "P3.1"},
        "selection": TILES | {"claim": "P3.3"},
    },
    "04_cam_consistency": {
        "grad_cam": VIEWS | {"dataset": "chest_xray", "sources": ["chest_xray"]},
        "road_views": VIEWS | {"dataset": "road_cracks", "sources": ["road_cracks"]},
        "stanford_cars": VIEWS | {"dataset": "stanford_cars", "sources": ["stanford_cars"]},
        "cifar10": VIEWS | {"dataset": "cifar10", "sources": ["cifar10"]},
        "cat_dog": VIEWS | {"dataset": "cifar10", "sources": ["cifar10"], "claim": "P4.3"},
        "road_views_20": VIEWS | {"dataset": "road_cracks", "sources": ["road_cracks"], "claim": "X4.5"},
        "road_masks_20": VIEWS | {"dataset": "road_cracks", "sources": ["road_cracks"], "claim": "X4.5"},
    },
    "05_lrp_bn": {
        "main": {"dataset": "road_cracks", "sources": ["road_cracks", "crackforest"], "claim": "P5.2"},
    },
}


def test_every_notebook_and_arm_has_its_few_steps_on_real_data():
    assert {*REAL} == {path.stem for path in ROOT.glob("notebooks/0*.ipynb")}
    for paper, arms in REAL.items():
        settings = yaml.safe_load((ROOT / f"notebooks/parameters/{paper}.yaml").read_text(encoding="utf-8"))["arms"]
        assert [*arms] == [arm for arm in settings if arm in arms]
        # paper 4 has many arms on one set, and test_p4_cam_consistency.py has its losses: one arm for every set
        left = {arm: set(settings[arm]) - {"loss", "per_class", "weight", "means"} for arm in settings.keys() - arms}
        assert paper == "04_cam_consistency" or not left
        assert not any(left.values())


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(("paper", "arm"), [(paper, arm) for paper, arms in REAL.items() for arm in arms])
def test_a_few_steps_on_real_data(home, tmp_path, paper, arm):
    real = REAL[paper][arm]
    name = real["dataset"]
    if name and store.place(store.entry(name))[0] == "missing":
        pytest.skip(f"{name} is neither in $XAI_DATA nor in data/: set XAI_DATA, or fetch it")
    data = {"XAI_DATA": os.environ["XAI_DATA"]} if os.environ.get("XAI_DATA") else {}
    few = given(**SHORT[paper] | real.get("few", {}))
    done = notebooks_run(home, tmp_path, paper, "standard", arm, 0, *few, **data)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = seed_folder(tmp_path, "standard", f"{arm}+own", paper=paper)
    record = suite.load_record(folder)
    assert (record.paper, record.profile, record.arm, record.seed) == (paper, "standard", f"{arm}+own", 0)
    assert [source.name for source in record.provenance.data] == real["sources"]
    variant = store.locate(name)[1]["variant"] if name else "embedded"
    assert {source.variant for source in record.provenance.data} == {variant}
    if real["sources"] == [name]:
        assert [source.model_dump() for source in record.provenance.data] == [store.locate(name)[1]]
    assert record.claims.keys() == claims.load().papers[paper].judged.keys()
    tested = record.claims[real["claim"]]  # a few steps need not be enough to learn the task
    unlearned = tested.reason.startswith("the network has not learned it: ")
    assert unlearned or tested.verdict in {*rules.VERDICTS} - {"not tested"}
    assert (folder / "notebook.ipynb").is_file()
