"""The README's example, run as pasted: it trains a small ResNet, explains it in three ways, and draws the picture."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if "resnet18" in block]
    return found


def test_the_example_runs_as_pasted_and_draws_its_picture(example, tmp_path):
    more = "print(round(lrp_score, 3), round(cam_score, 3), round(rise_score, 3))\nprint(len(lrp.ledger))\n"
    more += 'test = digits.subset("test")\n'
    more += "print((model(prepared(test.images)).argmax(1) == test.labels).float().mean())"
    (tmp_path / "example.py").write_text(example + more, encoding="utf-8")
    command = [sys.executable, "example.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    scores, layers, accuracy = done.stdout.strip().splitlines()[-3:]
    assert all(-1 < float(score) < 1 for score in scores.split())
    assert max(map(float, scores.split())) > 0.3  # at least one of them ranks pixels far better than chance
    assert int(layers) > 40  # every layer of a ResNet-18 has its line in the ledger
    assert float(re.search(r"[\d.]+", accuracy)[0]) > 0.9
    with Image.open(tmp_path / "explainers.png") as fresh, Image.open(ROOT / "results/readme/explainers.png") as shown:
        assert fresh.size == shown.size
