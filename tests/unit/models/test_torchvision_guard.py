"""`import torchvision` works after `import xai_utils`, whatever torchvision was built for."""

import subprocess
import sys
import textwrap

import pytest

import xai_utils
from xai_utils import _torchvision_guard as guard


def run(code):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torchvision_is_usable_its_operator_clear_and_a_second_call_harmless():
    out = run("""
        import sys
        import xai_utils
        assert not {"torch", "torchvision"} & {*sys.modules}
        import torch, torchvision.models, torchvision.transforms.v2, torchvision.datasets
        model = torchvision.models.resnet18(weights=None).eval()
        with torch.no_grad():
            print(tuple(model(torch.zeros(1, 3, 32, 32)).shape))
        print(torchvision.datasets.FakeData(1, (3, 8, 8))[0][0].size)
        assert xai_utils._torchvision_guard.install() is False

        boxes, scores = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]]), torch.tensor([0.5, 0.9])
        if torchvision.extension._has_ops():
            assert torchvision.ops.nms(boxes, scores, 0.5).tolist() == [1]
        else:
            try:
                torchvision.ops.nms(boxes, scores, 0.5)
            except RuntimeError as error:
                assert "Couldn't load custom C++ ops" in str(error), error
            else:
                raise AssertionError("nms ran without its operator")
    """)
    assert out.splitlines() == ["(1, 1000)", "(8, 8)"]


@pytest.mark.parametrize(
    "first",
    [
        "import torchvision",
        "from torchvision import models",
        "import torch; import torchvision.models",
        "import importlib; importlib.import_module('torchvision.models')",
        "import importlib.util; importlib.util.find_spec('torchvision')",
    ],
)
def test_whichever_way_torchvision_is_looked_for_first(first):
    run(f"import xai_utils; {first}; import torchvision.models, torchvision.ops")


def test_torchvision_imported_or_tried_before():
    run("""
        try:
            import torchvision
        except RuntimeError as error:
            assert "nms" in str(error)
        import xai_utils
        import torchvision.ops
    """)


@pytest.fixture
def declared(monkeypatch):
    """The schemas that `install` declares, in place of torch's registry, which starts without torchvision's."""
    schemas = []

    class Library:
        def __init__(self, namespace, kind):
            assert (namespace, kind) == ("torchvision", "FRAGMENT")

        def define(self, schema):
            schemas.append(schema.split("(")[0])

    monkeypatch.setattr(xai_utils._BeforeTorchvision, "done", True)  # only the test calls install
    monkeypatch.setattr(guard.torch.library, "Library", Library)
    monkeypatch.setattr(guard, "_declared", lambda: "nms" in schemas)
    monkeypatch.setattr(guard, "_library", guard._library)
    return schemas


def test_declares_where_the_extension_does_not_load(monkeypatch, declared):
    tried = []

    def load(path):
        tried.append(path)
        raise OSError("Could not load this library")

    monkeypatch.setattr(guard.torch.ops, "load_library", load)
    assert guard.install() is True
    assert declared == ["nms", "qnms"]
    assert guard.install() is False
    assert len(tried) == 1
    assert "_C." in tried[0]


def test_declares_nothing_where_the_extension_loads(monkeypatch, declared):
    monkeypatch.setattr(guard.torch.ops, "load_library", lambda path: declared.append("nms"))
    assert guard.install() is False
    assert declared == ["nms"]


def test_declares_where_the_extension_is_missing(monkeypatch, declared, tmp_path):
    assert not guard._extension_loads(str(tmp_path))


def test_declares_nothing_without_torchvision(monkeypatch, declared):
    monkeypatch.setattr(guard.importlib.util, "find_spec", lambda name: None)
    assert guard.install() is False
    assert declared == []
