"""Pictures of executed notebooks: fewer bytes, the same picture to the eye, and nothing else touched."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from xai_utils.suite import pictures


def png(pixels, mode="RGBA"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format="png")
    return buffer.getvalue()


@pytest.fixture
def drawn():
    """A picture of many colours (RGBA), as Jupyter keeps a figure."""
    across, down = np.meshgrid(np.arange(160), np.arange(120))
    grain = np.random.default_rng(0).integers(0, 6, across.shape)  # as in a photograph
    return png(np.stack([across + grain, down * 2 + grain, 200 - across + grain], 2).astype(np.uint8))


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_a_picture_gets_smaller_and_hardly_changes(drawn):
    less = pictures.small(drawn)
    assert len(less) < len(drawn)
    assert Image.open(io.BytesIO(less)).mode == "P"
    assert np.abs(pixels(less) - pixels(drawn)).mean() < 8  # of 255
    assert pictures.small(less) == less


def test_few_colours_are_kept_exactly_and_transparency_becomes_white():
    values = np.zeros((40, 40, 4), np.uint8)
    values[:20] = (200, 30, 60, 255)
    less = pictures.small(png(values))
    assert pixels(less)[:20].reshape(-1, 3).tolist() == [[200, 30, 60]] * 800
    assert (pixels(less)[20:] == 255).all()


def test_what_would_not_get_smaller_stays():
    one = png(np.full((1, 1, 3), 7, np.uint8), "RGB")
    assert pictures.small(one) == one


def test_only_the_pictures_of_a_notebook_change(tmp_path, drawn):
    text = base64.b64encode(drawn).decode()
    figure = {"output_type": "display_data", "metadata": {"image/png": {"alt": "A ramp."}}}
    figure["data"] = {"image/png": [text[:99], text[99:]], "text/plain": "<Figure>"}  # text in lists is allowed
    stream = {"output_type": "stream", "name": "stdout", "text": "図 done\n"}
    before = {"cells": [{"cell_type": "markdown", "source": "é"}, {"cell_type": "code", "outputs": [figure, stream]}]}
    path = tmp_path / "made.ipynb"
    path.write_text(json.dumps(before))
    assert pictures.main([str(path)]) == 0
    after = json.loads(path.read_text(encoding="utf-8"))
    content = after["cells"][1]["outputs"][0]["data"].pop("image/png")
    assert base64.b64decode(content) == pictures.small(drawn)
    before["cells"][1]["outputs"][0]["data"].pop("image/png")
    assert after == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["made.ipynb"]
    stamp = path.stat().st_mtime_ns
    after["cells"][1]["outputs"][0]["data"]["image/png"] = content
    assert pictures.main([str(path)]) == 0
    assert path.stat().st_mtime_ns == stamp  # nothing to do: not written
