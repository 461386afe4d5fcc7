"""Paper 4 on a user's own images of one composition."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from runs import PAPERS, given, notebooks_run, seed_folder

from xai_utils import suite

PAPER = PAPERS[3]


@pytest.mark.slow
def test_own_images_of_one_composition(home, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(60):
        picture = rng.integers(90, 130, (16, 16)).astype(np.uint8)
        picture[2:14, 4:12] += 60  # the composition
        mask = np.zeros_like(picture)
        if i % 2:
            picture[6:10, 5 + i % 4 : 9 + i % 4] = mask[6:10, 5 + i % 4 : 9 + i % 4] = 255
        name = ("empty", "filled")[i % 2]
        for folder, pixels in (("images", picture), *([("images/masks", mask)] if i % 2 else [])):
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / name / f"{i:02d}.png")
    own = {"source": "folder", "folder": tmp_path / "images", "masks": "masks", "size": 16, "width": 4}
    own |= {"per_class": 0, "steps": 100, "batch_size": 14, "compared": 4, "weight": 0.1}
    done = notebooks_run(home, tmp_path / "results", PAPER, "quick", "hybrid", 0, *given(**own))
    assert done.returncode == 0, done.stdout + done.stderr
    record = suite.load_record(seed_folder(tmp_path / "results", arm="hybrid+own", paper=PAPER))
    assert [(source.name, source.variant) for source in record.provenance.data] == [("images", "own")]
    folder = seed_folder(tmp_path / "results", arm="hybrid+own", paper=PAPER)
    rows = pd.read_csv(folder / "images.csv")
    judged = rows.dropna(subset=["prediction"])
    assert judged["suspicion"].mean() == pytest.approx(record.metrics["P4.5.mean_distance"].value, rel=1e-4)
    assert (judged["outcome"] == "wrong").sum() == record.metrics["P4.1.wrong"].value
    assert {path.name for path in (folder / "networks").iterdir()} == {
        "with_the_loss.safetensors", "without_the_loss.safetensors",
    }  # fmt: skip
    value = {name: metric.value for name, metric in record.metrics.items()}
    assert value["P4.1.wrong"] + value["P4.1.correct"] == 12  # a fifth of 60
    assert value["P4.3.wrong"] + value["P4.3.correct"] == 6
    assert value["P4.2.after.balanced_accuracy"] > 0.7
    assert value["P4.reference.chance"] == 0.5
    assert value["P4.reference.validation_accuracy"] > 0.5
    assert value["P4.1.within_between_ratio_correct"] == value["P4.4.within_between_ratio"]
    assert 0 <= value["P4.2.after.empty_share"] <= 1
    assert record.claims["X4.2"].verdict != "not tested"
    assert record.claims["P4.1"].evidence.startswith("belongs to arm grad_cam or")
