"""`import torchvision` works after `make_torchvision_importable()`, whatever torchvision was built for."""

import subprocess
import sys
import textwrap

import pytest

from xai_utils.models import guard


def run(code):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torchvision_is_usable_its_operator_clear_and_a_second_call_harmless():
    out = run("""
        import sys
        from xai_utils.models import make_torchvision_importable
        assert make_torchvision_importable() in (True, False) and "torchvision" not in sys.modules
        import torch, torchvision.models, torchvision.transforms.v2, torchvision.datasets
        model = torchvision.models.resnet18(weights=None).eval()
        with torch.no_grad():
            print(tuple(model(torch.zeros(1, 3, 32, 32)).shape))
        print(torchvision.datasets.FakeData(1, (3, 8, 8))[0][0].size)
        assert make_torchvision_importable() is False

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


def test_torchvision_imported_or_tried_before():
    run("""
        try:
            import torchvision
        except RuntimeError as error:
            assert "nms" in str(error)
        from xai_utils.models import make_torchvision_importable
        make_torchvision_importable()
        import torchvision.ops
    """)


@pytest.fixture
def declared(monkeypatch):
    """The schemas that are declared, in place of torch's registry, which starts without torchvision's."""
    schemas = []

    class Library:
        def __init__(self, namespace, kind):
            assert (namespace, kind) == ("torchvision", "FRAGMENT")

        def define(self, schema):
            schemas.append(schema.split("(")[0])

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
    assert guard.make_torchvision_importable() is True
    assert declared == ["nms", "qnms"]
    assert guard.make_torchvision_importable() is False
    assert len(tried) == 1
    assert "_C." in tried[0]


def test_declares_nothing_where_the_extension_loads(monkeypatch, declared):
    monkeypatch.setattr(guard.torch.ops, "load_library", lambda path: declared.append("nms"))
    assert guard.make_torchvision_importable() is False
    assert declared == ["nms"]


def test_declares_where_the_extension_is_missing(monkeypatch, declared, tmp_path):
    assert not guard._extension_loads(str(tmp_path))


def test_declares_nothing_without_torchvision(monkeypatch, declared):
    monkeypatch.setattr(guard.importlib.util, "find_spec", lambda name: None)
    assert guard.make_torchvision_importable() is False
    assert declared == []
