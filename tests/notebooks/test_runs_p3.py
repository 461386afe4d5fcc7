"""Paper 3 on a user's own classes of defects, with masks and without."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from runs import PAPERS, given, notebooks_run, seed_folder

from xai_utils import suite

PAPER = PAPERS[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arm", "masks"),
    [("selection", True), ("selection", False), ("patches", True)],
    ids=["masks", "no masks", "five networks"],
)
def test_own_defects_with_and_without_masks(home, tmp_path, arm, masks):
    rng = np.random.default_rng(0)
    for i in range(60):
        picture = rng.integers(90, 160, (32, 32)).astype(np.uint8)
        mask = np.zeros_like(picture)
        if i % 3:
            down, wide = (slice(8, 14), 6) if i % 3 == 1 else (slice(4, 28), 2)
            place = down, slice(i % 20, i % 20 + wide)
            picture[place], mask[place] = 20, 255
        name = ("good", "pit", "crack")[i % 3]
        for folder, pixels in (("images", picture), *([("images/masks", mask)] if i % 3 and masks else [])):
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / name / f"{i:02d}.png")
    own = {"dataset": "folder", "normal": "good", "folder": tmp_path / "images", "masks": "masks" if masks else ""}
    own |= {"size": 32, "width": 2, "epochs": 1, "compared": 2, "added": 4}
    done = notebooks_run(home, tmp_path / "results", PAPER, "quick", arm, 0, *given(**own))
    assert done.returncode == 0, done.stdout + done.stderr
    record = suite.load_record(seed_folder(tmp_path / "results", arm=f"{arm}+own", paper=PAPER))
    assert [(source.name, source.variant) for source in record.provenance.data] == [("images", "own")]
    marked = {name: record.metrics[f"P3.outcomes.{name}"].value for name in ("correct", "missed", "wrong_defect")}
    judged = {"selection": 12, "patches": 60}[arm]  # a fifth of the images; each of them, by one of five networks
    assert sum(marked.values()) == judged * 2 // 3
    assert record.metrics["P3.1.correct"].value == (marked["correct"] if masks else 0)
    assert (record.metrics["P3.4.auroc"].n == judged * 2 // 3) == masks
    assert record.metrics["P3.1.attainable.energy_share"].n == (judged * 2 // 3 if masks else 0)
    assert (record.metrics["P3.1.attainable.energy_share"].value is None) != masks
    assert record.metrics["P3.defect.balanced_accuracy"].n == judged
    assert 1 <= record.metrics["P3.validation.balanced_accuracy"].n / {"selection": 6, "patches": 25}[arm] <= 1.3
    if arm == "selection":
        assert record.metrics["X3.2.random.balanced_accuracy"].n == 12  # needs no mask
    else:
        with np.load(seed_folder(tmp_path / "results", arm=f"{arm}+own", paper=PAPER) / "test.npz") as arrays:
            assert np.bincount(arrays["fold"]).tolist() == [12] * 5
    folder = seed_folder(tmp_path / "results", arm=f"{arm}+own", paper=PAPER)
    rows = pd.read_csv(folder / "images.csv")
    assert len(rows) == record.images == 60
    told = rows.dropna(subset=["prediction"])
    counted = told["outcome"].value_counts()
    assert all(counted.get(name.replace("_", " "), 0) == count for name, count in marked.items())
    assert ((told["prediction"] == told["truth"]).mean()) == pytest.approx(record.metrics["P3.accuracy"].value)
    assert ("defect_energy" in rows) == masks
    if arm == "selection":  # one network
        network = suite.load_network(folder / "networks/resnet_0.safetensors")
        pictures = np.stack([np.asarray(Image.open(tmp_path / "images" / name)) / 255 for name in told["file"]])
        answers = network(torch.tensor(pictures[:, None], dtype=torch.float32)).softmax(1)
        assert [network.about["classes"][k] for k in answers.argmax(1)] == told["prediction"].tolist()
        assert answers.amax(1).tolist() == pytest.approx(told["confidence"].tolist(), abs=1e-4)
