"""Paper 5 on a user's own cracks, with masks and without."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from runs import PAPERS, given, notebooks_run, seed_folder

from xai_utils import suite

PAPER = PAPERS[4]


@pytest.mark.slow
@pytest.mark.parametrize("masks", [True, False], ids=["masks", "no masks"])
def test_own_cracks_with_and_without_masks(home, tmp_path, masks):
    rng = np.random.default_rng(0)
    for i in range(80):
        picture = rng.integers(90, 160, (64, 64, 3)).astype(np.uint8)
        mask = np.zeros((64, 64), np.uint8)
        if i % 2:
            picture[4:60, 10 + i % 40 : 14 + i % 40], mask[4:60, 10 + i % 40 : 14 + i % 40] = 20, 255
        name = ("sound", "crack")[i % 2]
        for folder, pixels in (("images", picture), *([("images/masks", mask)] if i % 2 and masks else [])):
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / name / f"{i:02d}.png")
    own = {"dataset": "folder", "folder": tmp_path / "images", "masks": "masks" if masks else "", "size": 32}
    own |= {"width": 8, "epochs": 2, "cracks": 8, "fewer": 4, "steps": 3, "rise_masks": 10}
    done = notebooks_run(home, tmp_path / "results", PAPER, "quick", "main", 0, *given(**own))
    assert done.returncode == 0, done.stdout + done.stderr
    record = suite.load_record(seed_folder(tmp_path / "results", arm="main+own", paper=PAPER))
    assert [(source.name, source.variant) for source in record.provenance.data] == [("images", "own")]
    folder = seed_folder(tmp_path / "results", arm="main+own", paper=PAPER)
    rows = pd.read_csv(folder / "images.csv")
    judged = rows[rows["split"] == "test"]
    assert (judged["outcome"] == "right").mean() == pytest.approx(record.metrics["P5.3.abn.accuracy"].value)
    assert rows["lrp_bn"].mean() == pytest.approx(record.metrics["P5.1.lrp_bn.id_score"].value, rel=1e-4)
    right = judged["outcome"] == "right"
    assert ((judged["suspicion"] < 0.5) == right).all()  # of two classes
    assert suite.load_network(folder / "networks/abn.safetensors").about["image"] == [3, 32, 32]
    assert record.metrics["P5.1.lrp_bn.id_score"].n == 8  # insertion and deletion need no mask
    assert (record.metrics["P5.1.lrp_bn.iou"].value is None) == (not masks)
    assert record.metrics["P5.3.abn.accuracy"].low < 0.5  # two epochs: no better than guessing
    for claim in ("P5.2", "P5.4"):
        assert record.claims[claim].verdict == "not tested"
        assert record.claims[claim].reason.startswith("the network has not learned it: P5.3.abn.accuracy is ")
    assert record.claims["P5.4"].conditions[0].defined == masks
    assert record.claims["P5.2"].conditions[0].defined
    assert record.claims["P5.3"].verdict == "not tested"  # on own images every claim but a value stands behind the gate
    assert record.claims["P5.1"].verdict == "not comparable"
    assert record.claims["X5.5"].verdict == "not tested"  # no second set
