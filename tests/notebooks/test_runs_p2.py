"""Paper 2 on a user's own images with targets, with masks and without."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from runs import PAPERS, given, notebooks_run, seed_folder

from xai_utils import suite

PAPER = PAPERS[1]


@pytest.mark.slow
@pytest.mark.parametrize("masks", [True, False], ids=["masks", "no masks"])
def test_own_regression_with_and_without_masks(home, tmp_path, masks):
    lines = ["file,target"]
    for i in range(30):
        picture = np.zeros((16, 16), np.uint8)
        picture[2 : 4 + i // 3, 3:9] = 255
        for folder in ("images", "images/masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(picture).save(tmp_path / folder / f"{i:02d}.png")
        lines.append(f"{i:02d}.png,{i / 15 - 1}")
    (tmp_path / "images/targets.csv").write_text("\n".join(lines))
    own = {"folder": tmp_path / "images", "masks": "masks" if masks else "", "size": 16, "width": 2, "poolings": 1}
    own |= {"epochs": 1, "compared": 2}
    if not masks:
        for path in (tmp_path / "images/masks").iterdir():
            path.unlink()
    done = notebooks_run(home, tmp_path / "results", PAPER, "quick", "rectangles", 0, *given(**own))
    assert done.returncode == 0, done.stdout + done.stderr
    record = suite.load_record(seed_folder(tmp_path / "results", arm="rectangles+own", paper=PAPER))
    assert [(source.name, source.variant) for source in record.provenance.data] == [("images", "own")]
    assert (record.claims["P2.1"].verdict, record.claims["P2.6"].verdict) == ("not comparable", "not tested")
    assert (record.metrics["P2.4.signed.auc_difference"].value is None) == (not masks)
    assert record.metrics["P2.1.r2"].value < 0  # one epoch: worse than the mean of all targets
    assert record.claims["P2.4"].verdict == "not tested"
    assert record.claims["P2.4"].reason.startswith("the network has not learned it: P2.reference.r2 is -")
    assert record.claims["P2.4"].conditions[1].defined == masks
    assert record.claims["P2.5"].verdict == "not tested"  # though an identity: no verdict while a network guesses
    assert record.claims["P2.5"].conditions[0].holds
    rows = pd.read_csv(seed_folder(tmp_path / "results", arm="rectangles+own", paper=PAPER) / "images.csv")
    assert len(rows) == record.images == 30
    judged = rows[rows["split"] == "test"]
    assert judged["outcome"].tolist() == pytest.approx((judged["prediction"] - judged["truth"]).tolist(), abs=1e-4)
    assert judged["outcome"].abs().mean() == pytest.approx(record.metrics["P2.1.mae"].value, rel=1e-3)
    assert ("inside_moram" in rows) == masks
    said = done.stdout
    assert "This network has not learned its task" in said
    assert f"{rows.loc[rows['suspicion'].idxmax(), 'file']}: " in said
