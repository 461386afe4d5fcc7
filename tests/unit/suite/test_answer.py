"""What a run leaves for each image: images.csv, overlays, networks, and the text that says where everything is."""

import io
from functools import partial

import numpy as np
import pandas as pd
import pytest
import tiny_paper
import torch
from PIL import Image
from tiny_paper import PAPER, measured, rewrite

from xai_utils import suite
from xai_utils.data.imageset import ImageSet
from xai_utils.models import SmallCNN
from xai_utils.suite import answer
from xai_utils.suite.parameters import PASSED
from xai_utils.suite.record import load_record

pytestmark = pytest.mark.usefixtures("repository")
MORE = """
minutes: {type: float, default: 6.0, above: 0.0, help: "minutes"}
overlays: {type: int, default: 0, minimum: -1, help: "overlays"}
epochs: {type: int, default: 6, minimum: 1, help: "epochs"}
"""
OWN = {"name": "steel", "sha256": "ab", "variant": "own"}
NAMES = ("good", "crack, deep")


def images(n=6, targets=None):
    """n grey images of 8×8, image i of the grey value i / n; two classes in turn, or targets."""
    labels = torch.arange(n) % 2 if targets is None else torch.tensor(targets)
    return ImageSet(
        name="folder",
        pixels=torch.arange(n)[:, None, None, None].expand(n, 1, 8, 8) / n,
        labels=labels,
        split=np.array(["train", "val", "test"])[np.arange(n) % 3],
        ids=np.array([f"class {i % 2}/{i}.png" for i in range(n)]),
        class_names=NAMES if targets is None else (),
        provenance=OWN,
    )


def started(repository, data=OWN, **changes):
    path = repository / f"notebooks/parameters/{PAPER}.yaml"
    if "minutes:" not in path.read_text():
        rewrite(path, path.read_text() + MORE)
    run = tiny_paper.start(**({"minutes": 6.0, "overlays": 0, "epochs": 6} | changes))
    run.uses(data)
    return measured(run)


# the table ------------------------------------------------------------------------------------------------------


def test_a_line_an_image_with_its_words_and_scores():
    everything = images()
    judged = everything.subset("test")  # 2 and 5
    scores = pd.DataFrame({"energy": [0.25], "id_Grad-CAM, layer3": [0.5], "no mask": np.nan}, index=[judged.ids[1]])
    more = {"confidence": torch.tensor([0.9, 0.6]), "suspicion": [0.1, 0.4], "scores": scores}
    found = answer.table(everything, judged, torch.tensor([0, 0]), **more, whole=True)
    assert list(found) == [*answer.COLUMNS, "energy", "id_grad_cam_layer3"]
    assert found["file"].tolist() == everything.ids.tolist()
    assert found["truth"].tolist() == ["good", "crack, deep"] * 3
    judged_rows = found[found["split"] == "test"]
    assert judged_rows["prediction"].tolist() == ["good", "good"]
    assert judged_rows["outcome"].tolist() == ["right", "wrong"]
    assert judged_rows["confidence"].tolist() == pytest.approx([0.9, 0.6])
    assert judged_rows["energy"].isna().tolist() == [True, False]
    assert found.loc[found["split"] != "test", "prediction"].isna().all()
    assert len(answer.table(everything, judged, [0, 0])) == 2
    again = pd.read_csv(io.BytesIO(answer.as_csv(found)))
    pd.testing.assert_frame_equal(again, found, check_dtype=False, rtol=1e-5)


def test_the_outcome_of_a_regression_is_how_far_it_is_off():
    everything = images(3, [0.5, -1.0, 2.0])
    found = answer.table(everything, everything, torch.tensor([0.75, -1.0, 1.0]))
    assert found["outcome"].tolist() == [0.25, 0.0, -1.0]
    assert found["truth"].tolist() == [0.5, -1.0, 2.0]


def test_a_table_that_is_too_long_keeps_the_most_suspicious_of_those_that_were_judged():
    n = 300
    everything = images(n)
    rows = answer.table(
        everything, everything.take(np.arange(200)), np.zeros(200, int), suspicion=np.arange(200.0), whole=True
    )
    whole = answer.as_csv(rows)
    assert len(pd.read_csv(io.BytesIO(whole))) == n
    short = answer.as_csv(rows, len(whole) // 4)
    assert len(short) <= len(whole) // 4
    kept = pd.read_csv(io.BytesIO(short))["suspicion"].tolist()
    assert kept == sorted(range(200), reverse=True)[: len(kept)]
    assert 40 < len(kept) < 75


# networks -------------------------------------------------------------------------------------------------------


def test_a_network_comes_back_with_the_same_outputs(tmp_path):
    torch.manual_seed(3)
    build = partial(partial(SmallCNN, 3), in_channels=1)
    model = build().to(memory_format=torch.channels_last).eval()
    (tmp_path / "cnn.safetensors").write_bytes(answer.save_network(model, build, {"classes": ["a", "b", "ä"]}))
    loaded = suite.load_network(tmp_path / "cnn.safetensors")
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(loaded(x), model(x))
    assert not loaded.training
    assert loaded.about == {"classes": ["a", "b", "ä"]}


def test_what_builds_a_network_is_of_this_package_and_plain(tmp_path):
    model = SmallCNN(3, 1)
    with pytest.raises(ValueError, match=r"torch.nn.modules.linear:Linear is no function of this package"):
        answer.save_network(model, partial(torch.nn.Linear, 2, 2), {})
    with pytest.raises(ValueError, match="expected plain arguments"):
        answer.save_network(model, partial(SmallCNN, torch.ones(1)), {})
    with pytest.raises(FileNotFoundError, match="no network at"):
        suite.load_network(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(ValueError, match="is no network of this package"):
        suite.load_network(tmp_path / "text.safetensors")
    content = answer.save_network(model, partial(SmallCNN, 3, 1), {}).replace(b"xai_utils.models", b"xbi_utils.models")
    (tmp_path / "other.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="built by xbi_utils"):
        suite.load_network(tmp_path / "other.safetensors")


# overlays -------------------------------------------------------------------------------------------------------


def test_overlays_are_red_where_the_map_is_high_and_the_maps_come_as_they_are():
    some = images()
    maps = torch.zeros(6, 8, 8)
    maps[:, :4] = torch.arange(1.0, 7)[:, None, None]
    files = answer.overlays(some, {"Grad-CAM": maps}, [some.ids[5], some.ids[2], "not there.png"])
    assert sorted(files) == ["0000_class_1_5_grad_cam.png", "0001_class_0_2_grad_cam.png", "maps.npz"]
    pixels = np.asarray(Image.open(io.BytesIO(files["0000_class_1_5_grad_cam.png"])))
    assert pixels.shape == (256, 256, 3)
    assert pixels[10, 10, 0] > pixels[10, 10, 2] + 50  # red above
    assert pixels[250, 10, 2] > pixels[250, 10, 0] + 50  # blue below
    with np.load(io.BytesIO(files["maps.npz"])) as kept:
        assert kept["files"].tolist() == [some.ids[5], some.ids[2]]
        np.testing.assert_array_equal(kept["grad_cam"], maps[[5, 2]])


def test_a_signed_map_is_blue_below_zero_and_a_film_becomes_a_strip():
    picture = np.full((1, 8, 8), 0.5)
    signed = np.linspace(-1, 1, 64).reshape(8, 8)
    pixels = np.asarray(answer.overlay(picture, signed)).astype(int)
    assert pixels[0, 0, 2] > pixels[0, 0, 0] + 30
    assert pixels[-1, -1, 0] > pixels[-1, -1, 2] + 30
    coarse = np.asarray(answer.overlay(picture, np.array([[0.0, 1.0], [0.0, 1.0]])))  # enlarged to the picture's size
    assert coarse.shape == (256, 256, 3)
    strip = np.asarray(answer.overlay(picture, np.stack([np.zeros((1, 8, 8)), np.ones((1, 8, 8))])))
    assert strip.shape == (256, 3 * 256, 3)
    assert [strip[0, x, 0] for x in (10, 300, 600)] == [128, 0, 255]


# a run ----------------------------------------------------------------------------------------------------------


def keep(run, everything, **more):
    judged = everything.subset("test")
    maps = {"Grad-CAM": torch.ones(len(judged), 8, 8)}
    more = {"suspicion": {"an odd map": np.array([0.1, 0.4])}, "confidence": np.array([0.9, 0.6]), "maps": maps} | more
    run.images(everything, judged, torch.tensor([0, 0]), **more)


def test_own_images_leave_every_image_the_networks_and_the_overlays_that_were_asked_for(repository, capsys):
    run = started(repository, overlays=1)
    model = SmallCNN(2, 1)
    keep(run, images(), networks={"cnn": (model, partial(SmallCNN, 2, 1))}, scores={"energy": np.array([0.5, 0.75])})
    run.record()
    folder = run.folder
    assert sorted(path.name for path in folder.iterdir()) == ["images.csv", "networks", "overlays", "record.json"]
    rows = pd.read_csv(folder / "images.csv")
    assert len(rows) == 6
    assert rows["energy"].dropna().tolist() == [0.5, 0.75]
    assert [path.name for path in (folder / "networks").iterdir()] == ["cnn.safetensors"]
    assert sorted(path.name for path in (folder / "overlays").iterdir()) == ["0000_class_1_5_grad_cam.png", "maps.npz"]
    record = load_record(folder)
    assert (record.images, record.suspicion) == (6, "an odd map")
    assert suite.load_network(folder / "networks/cnn.safetensors").about["classes"] == list(NAMES)
    said = capsys.readouterr().out
    place = f"results/quick/{PAPER}/main+own/seed_3"
    for text in (
        f"record: {place}", "  accuracy: 97.5 %", "  wrong answers: 1 of 2 images",
        "images.csv: 6 images", "the most suspicious (an odd map):",
        "class 1/5.png: crack, deep → good (0.4)", "networks/cnn.safetensors", "suite.load_network(",
        "overlays/, 1 pictures",
    ):  # fmt: skip
        assert text in said
    assert str(repository) not in said  # it stays in the notebook
    assert answer.main([str(folder)]) == 0
    assert capsys.readouterr().out == said[said.index("record: ") :].replace(place, str(folder))


def test_a_later_run_takes_the_older_ones_files_away(repository):
    run = started(repository, overlays=-1)
    keep(run, images(), networks={"cnn": (SmallCNN(2, 1), partial(SmallCNN, 2, 1))})
    run.record()
    assert len(list((run.folder / "overlays").glob("*.png"))) == 2
    again = started(repository, overlays=0)
    assert again.folder != run.folder or again.overrides == run.overrides
    other = started(repository, overlays=-1)
    other.record()
    assert sorted(path.name for path in other.folder.iterdir()) == ["record.json"]


def test_the_papers_own_data_leave_a_line_for_each_judged_image_and_no_network(repository, capsys):
    run = started(repository, {"name": "digits", "sha256": "ab", "variant": "embedded"})
    keep(run, images(), networks={"cnn": (SmallCNN(2, 1), partial(SmallCNN, 2, 1))})
    run.record()
    assert sorted(path.name for path in run.folder.iterdir()) == ["images.csv", "record.json"]
    assert len(pd.read_csv(run.folder / "images.csv")) == 2
    assert capsys.readouterr().out == ""
    assert answer.told(run.folder) == f"record: {run.folder}"


def test_where_no_score_was_learnt_a_low_confidence_is_what_is_suspicious(repository):
    run = started(repository)
    keep(run, images(), suspicion={"an odd map": None})
    run.record()
    assert load_record(run.folder).suspicion == "a low confidence"
    assert pd.read_csv(run.folder / "images.csv")["suspicion"].dropna().tolist() == pytest.approx([0.1, 0.4])


def test_pictures_for_research_only_are_not_written_into_files(repository):
    from xai_utils.data.store import unpublished

    run = started(repository, {"name": sorted(unpublished())[0], "sha256": "ab", "variant": "prepared"}, overlays=-1)
    keep(run, images())
    run.record()
    assert not (run.folder / "overlays").exists()


def test_no_usable_record_is_said_in_one_line(tmp_path, capsys):
    assert answer.main([str(tmp_path)]) == 2
    assert "no record at" in capsys.readouterr().err


# how long own images train --------------------------------------------------------------------------------------


def test_own_images_train_by_their_number_and_the_papers_data_as_the_paper_says(repository, monkeypatch):
    given = {"epochs": 6, "patience": None}
    run = started(repository, {"name": "digits", "sha256": "ab", "variant": "embedded"})
    assert run.length("epochs", 210, 64, **given) == given
    run = started(repository)
    own = run.length("epochs", 210, 64, share=0.5, **given)
    assert own == {"epochs": 150, "patience": None, "minutes": 3.0, "keep": "best"}  # 4 batches an epoch
    assert run.length("epochs", 100_000, 64, **given)["epochs"] == 20
    assert "keep" not in run.length("steps", 210, 64, best=False, epochs=6)
    monkeypatch.setenv(PASSED, "folder epochs")
    run = started(repository)
    assert run.length("epochs", 210, 64, **given) == given
    assert run.length("steps", 210, 64, epochs=2)["epochs"] == 150


def test_the_record_says_how_many_epochs_a_training_had(repository):
    run = started(repository)
    run.checkpoint("vgg").with_name("vgg.pt.epochs").write_text("43")
    run.record()
    assert load_record(run.folder).provenance.epochs == {"vgg": 43}


# own images and chance ------------------------------------------------------------------------------------------


def test_own_images_get_no_verdict_while_the_network_guesses(repository, capsys):
    run = started(repository)
    run.measure("V1.chance", 99.0, "%")
    table = run.record().set_index("claim")
    assert table.loc["P1.1", "verdict"] == "not comparable"  # a value
    assert table.loc["P1.2", "verdict"].startswith("not tested (the network has not learned it")
    assert "This network has not learned its task" in capsys.readouterr().out
