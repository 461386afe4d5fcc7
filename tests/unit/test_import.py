"""Imports run downwards only, and importing the package loads no more than torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import xai_utils

PACKAGE = Path(xai_utils.__file__).parent
FLOORS = [
    {"fingerprint", "progress", "seeds"},
    {"data", "models"},
    {"explain", "metrics"},
    {"training", "suite"},
    {"plot"},
    {"papers"},
]
LEVEL = {part: level for level, parts in enumerate(FLOORS) for part in parts}
STRANGERS = [{"explain", "metrics"}, {"explain", "data"}, {"metrics", "data"}, {"models", "data"}]


def imported_parts(source, module):
    """Parts of the package (`data`, `explain`, …) that a module imports, also within its functions."""
    package = module.split(".") if module.endswith("__init__") else module.split(".")[:-1]
    package = [name for name in package if name != "__init__"]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("xai_utils."))


def violations(sources):
    """Imports that run upwards, or between rooms that must not know each other. `sources`: {module: source}."""
    seen, found = set(), []
    for module, source in sources.items():
        part = module.split(".")[1]
        if part == "__init__":
            found += [f"{module} imports {other}" for other in imported_parts(source, module) if LEVEL[other] > 0]
            continue
        for other in imported_parts(source, module):
            if other == part:
                continue
            if LEVEL[other] > LEVEL[part] or {part, other} in STRANGERS or (other, part) in seen:
                found.append(f"{module} imports {other}")
            seen.add((part, other))
    return found


def test_imports_run_downwards_only():
    files = {".".join(["xai_utils", *f.relative_to(PACKAGE).with_suffix("").parts]): f for f in PACKAGE.rglob("*.py")}
    parts = {module.split(".")[1] for module in files} - {"__init__"}
    assert parts <= set(LEVEL), f"give these a floor in FLOORS: {sorted(parts - set(LEVEL))}"
    assert violations({module: f.read_text(encoding="utf-8") for module, f in files.items()}) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("xai_utils.explain.gradcam", "from ..metrics import iou"),
        ("xai_utils.explain.gradcam", "from xai_utils import data"),
        ("xai_utils.models.cnn", "def f():\n    import xai_utils.training"),
        ("xai_utils.metrics.iou", "from xai_utils.explain.gradcam import normalize"),
        ("xai_utils.data.__init__", "from ..suite import start"),
        ("xai_utils.seeds", "from .data import load"),
        ("xai_utils.__init__", "from .explain import GradCAM"),
    ],
)
def test_the_rule_notices(module, source):
    assert violations({module: source})


def test_the_rule_notices_a_circle_and_accepts_what_is_right():
    assert violations({"xai_utils.models.x": "from .. import data", "xai_utils.data.y": "from .. import models"})
    assert not violations(
        {"xai_utils.explain.gradcam": "from ..models.forward import preserve_state\nfrom .x import y"}
    )


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "parts", ["xai_utils", "xai_utils.suite.batch, xai_utils.suite.report", "xai_utils.data.__main__"]
)
def test_what_reads_records_and_data_lists_does_without_torch(parts):
    assert python(f"import sys, {parts}; print([n for n in ('torch', 'scipy.stats') if n in sys.modules])") == "[]"


def test_importing_the_package_loads_only_torch():
    heavy = ["captum", "shap", "lime", "matplotlib", "pandas", "sklearn", "skimage", "scipy", "torchvision", "IPython"]
    code = f"""
import sys, torch
before = set(sys.modules)
import xai_utils, xai_utils.models, xai_utils.explain
new = set(sys.modules) - before
print([name for name in {heavy} if name in new])
print(sorted(name for name in new if name.startswith("xai_utils")))
"""
    heavy_found, parts = python(code).splitlines()
    assert heavy_found == "[]"
    assert parts == str(["xai_utils", "xai_utils.explain", "xai_utils.models"])


@pytest.mark.parametrize("package", ["explain", "models"])
def test_every_public_name_exists(package):
    module = getattr(xai_utils, package)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    assert dir(module) == module.__all__
    with pytest.raises(AttributeError, match="attribute Nothing"):
        module.Nothing
    with pytest.raises(AttributeError, match="attribute nothing"):
        xai_utils.nothing


def test_no_file_is_named_like_what_its_package_offers():
    for package in ("explain", "metrics", "models", "data", "suite"):
        files = {file.stem for file in (PACKAGE / package).glob("*.py")}
        assert not files & set(getattr(xai_utils, package).__all__), package
