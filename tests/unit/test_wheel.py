"""The wheel holds what an installed package needs, and names the claims' file that came with it."""

import importlib.metadata
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from xai_utils.data import store
from xai_utils.suite import claims

ROOT = Path(__file__).parents[2]
VERSIONS = ROOT / "tests" / "versions"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Names of the files in a wheel that is built of a copy of what the wheel is made from."""
    copy, built = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "xai_utils", copy / "xai_utils", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "results").mkdir()
    shutil.copy(ROOT / "results" / "reported.yaml", copy / "results")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(built), "."]
    done = subprocess.run(pip, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = built.glob("*.whl")
    return zipfile.ZipFile(file).namelist()


def test_it_holds_every_module_stub_and_list_the_types_marker_and_the_papers_numbers(wheel):
    wanted = [file for file in (ROOT / "xai_utils").rglob("*") if file.suffix in {".py", ".pyi", ".yaml", ".typed"}]
    assert {str(file.relative_to(ROOT)) for file in wanted} <= set(wheel)
    assert "xai_utils/py.typed" in wheel
    assert sum(name.endswith(".pyi") for name in wheel) >= 6
    assert any(name.endswith("data/share/xai-utils/reported.yaml") for name in wheel)


def test_outside_a_checkout_the_claims_are_read_from_the_installed_file_or_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("XAI_ROOT", raising=False)
    packages = tmp_path / "site-packages"
    monkeypatch.setattr(store, "__file__", str(packages / "xai_utils" / "data" / "store.py"))
    file = importlib.metadata.PackagePath("../share/xai-utils/reported.yaml")
    file.dist = importlib.metadata.PathDistribution(packages / "xai_utils.dist-info")
    packages.mkdir()
    (tmp_path / "share" / "xai-utils").mkdir(parents=True)
    shutil.copy(ROOT / "results" / "reported.yaml", tmp_path / "share" / "xai-utils")
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [file])
    assert len(claims.load().papers) == 5
    monkeypatch.setattr(importlib.metadata, "files", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install -e \.`, or set XAI_ROOT"):
        claims.load()


def pins(name):
    lines = [line for line in (VERSIONS / name).read_text().splitlines() if line and not line.startswith("#")]
    return [Requirement(line) for line in lines]


def test_the_oldest_and_newest_versions_are_the_bounds_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = {pin.name: str(pin.specifier).removeprefix("==") for pin in pins("oldest.txt")}
    for line in map(Requirement, project["dependencies"]):
        lower = [bound.version for bound in line.specifier if bound.operator in {">=", "=="}]
        assert [Version(bound) for bound in lower] == [Version(oldest[line.name])], line
        newest = [str(pin.specifier).removeprefix("==") for pin in pins("newest.txt") if pin.name == line.name]
        assert newest, f"{line.name} is not in tests/versions/newest.txt"
        assert all(line.specifier.contains(version) for version in newest), line
        assert line.name in ("torch", "torchvision") or any(b.operator == "<" for b in line.specifier), line
