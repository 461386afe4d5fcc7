"""What tests of the suite begin with."""

import matplotlib.pyplot as plt
import pytest
import tiny_paper

from xai_utils.suite import run as suite_run
from xai_utils.suite.parameters import PASSED


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A checkout of its own with one paper; a run that a test leaves open is ended."""
    root = tmp_path / "repository"
    tiny_paper.checkout(root)
    monkeypatch.setenv("XAI_ROOT", str(root))
    for name in ("XAI_RESULTS", PASSED):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(suite_run, "_active", None)
    yield root
    if suite_run._active:
        suite_run._active._close("was ended by the test")
    plt.close("all")
