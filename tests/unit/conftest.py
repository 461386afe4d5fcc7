"""What several unit tests begin with."""

import pytest


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty checkout, with its data in data/."""
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    monkeypatch.setenv("XAI_DATA", str(tmp_path / "data"))
    return tmp_path
