"""Where a run's numbers come from: code, machine, packages, and hashes of everything that computed.

Nothing here holds a user name, a host name or an absolute path: records are published.
"""

import ast
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import psutil
import yaml

import xai_utils
from xai_utils.suite.strict import load_yaml

SOURCES = Path(xai_utils.__file__).parent.parent  # names of modules in a record are relative to this folder
# They write numbers down, or draw them, they do not make them: editing them leaves a record fresh. Which value of a
# parameter counts is decided in the suite, too, and that does make numbers.
WRITERS = ("xai_utils/suite/", "xai_utils/plot", "xai_utils/progress", "xai_utils/fingerprint")
WRITERS += ("xai_utils/models/trained",)  # files of networks
DECIDES = "xai_utils/suite/parameters.py"
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "scikit-image", "pandas", "pillow", "matplotlib")
PACKAGES += ("captum", "lime", "shap")
# of `git rev-parse --local-env-vars`, those that say where a repository is
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE")


def _canonical(node: Any) -> str:
    """Text of a syntax tree that is equal on Python 3.11 to 3.13: what differs between them is left out.

    That is None, empty lists, ``kind`` (the ``u`` of ``u""``) and ``type_params``; and, as they compute nothing,
    statements that are only a string (docstrings).
    """
    if isinstance(node, list):
        if node and isinstance(node[0], ast.stmt):
            node = [n for n in node if not (isinstance(n, ast.Expr) and isinstance(getattr(n.value, "value", 0), str))]
        return "[" + ",".join(_canonical(n) for n in node) + "]"
    if not isinstance(node, ast.AST):
        return ascii(node)  # not repr: which characters it escapes depends on the Unicode tables
    parts = [
        f"{name}={text}"
        for name, value in ast.iter_fields(node)
        if value is not None and name not in ("kind", "type_params") and (text := _canonical(value)) != "[]"
    ]
    return f"{type(node).__name__}({','.join(parts)})"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_python(source: str) -> str:
    """Hash of what the source computes: docstrings, comments and layout do not count."""
    return _digest(_canonical(ast.parse(source)))


def _cell_text(source: str) -> str:
    """One code cell's canonical text; IPython's magics count as the text that they are."""
    try:
        return _canonical(ast.parse(source))  # first as it stands: a line may well begin with an operator %
    except SyntaxError:
        pass
    lines = source.splitlines()
    for i, line in enumerate(lines):
        bare = line.lstrip()
        if bare.startswith(("%", "!")):
            lines[i] = f"{line[: len(line) - len(bare)]}__magic__({bare.strip()!r})"
    try:
        return _canonical(ast.parse("\n".join(lines)))
    except SyntaxError:  # a %%bash cell, say
        return ascii([line.rstrip() for line in source.strip().splitlines()])


def hash_notebook(text: str) -> str:
    """Hash of a notebook's code cells; parameters, outputs, prose, metadata and comments do not count."""
    cells = []
    for cell in json.loads(text)["cells"]:
        tags = cell.get("metadata", {}).get("tags", [])
        if cell["cell_type"] == "code" and not {"parameters", "injected-parameters"} & set(tags):
            cells.append(_cell_text("".join(cell["source"])))
    return _digest("\n".join(c for c in cells if c != "Module()"))


def hash_text(text: str, path: Path) -> str:
    """Content hash of a file's text; ValueError if it cannot be parsed as what `path` ends with."""
    try:
        if path.suffix == ".ipynb":
            return hash_notebook(text)
        if path.suffix == ".py":
            return hash_python(text)
        if path.suffix == ".csv":
            return _digest(text)
        return _digest(json.dumps(load_yaml(text), sort_keys=True, default=str))  # parsed: layout is no content
    except (SyntaxError, ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be hashed, it is not a valid {path.suffix} file ({error}).") from error


@functools.lru_cache(maxsize=4096)
def _hash_file(path: str, _modified_ns: int, _size: int) -> str:
    file = Path(path)
    try:
        return hash_text(file.read_text(encoding="utf-8"), file)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: cannot be hashed, it is not text in UTF-8 ({error}).") from error


def hash_file(path: Path | str) -> str:
    """Content hash (16 hex digits) of a ``.py``, ``.ipynb``, ``.yaml`` or ``.csv`` file.

    ValueError if it cannot be parsed.
    """
    stat = os.stat(path)
    return _hash_file(os.fspath(path), stat.st_mtime_ns, stat.st_size)


def module_hashes(root: Path, paper: str, profile: str) -> dict[str, str]:
    """Hashes of the package's loaded modules, of the paper's notebook and of its profile, by relative path.

    With a module that reads data come its lists of images and boxes, data/splits and data/boxes: those whose name
    begins as the module's does, or the other way round. ``__init__.py`` files (re-exports) and the modules of
    ``WRITERS`` are left out; so is what does not exist.
    """
    hashes = {}
    for name, module in list(sys.modules.items()):
        path = Path(getattr(module, "__file__", None) or "")
        if name.partition(".")[0] == "xai_utils" and path.suffix == ".py" and path.name != "__init__.py":
            key = path.relative_to(SOURCES).as_posix()
            if key == DECIDES or not key.startswith(WRITERS):
                hashes[key] = hash_file(path)
    readers = [Path(key).stem for key in hashes if key.startswith("xai_utils/data/")]
    lists = [path for folder in ("splits", "boxes") for path in (root / "data" / folder).glob("*.csv")]
    used = [path for path in lists if any(r.startswith(path.stem) or path.stem.startswith(r) for r in readers)]
    keys = [path.relative_to(root).as_posix() for path in used]
    for key in (*keys, f"notebooks/{paper}.ipynb", f"notebooks/profiles/{profile}/{paper}.yaml"):
        if (root / key).is_file():
            hashes[key] = hash_file(root / key)
    return dict(sorted(hashes.items()))


def git_environment() -> dict[str, str]:
    """The environment without the variables that would lead git to another repository than the folder's own."""
    return {name: value for name, value in os.environ.items() if name not in ELSEWHERE} | {"LC_ALL": "C"}


def git_state(root: Path) -> tuple[str, bool | None]:
    """Commit and whether the tree is dirty; ("unknown", None) without git or outside a checkout.

    Dirty: tracked changes outside ``results/``, or an untracked file in the package. A warning names the way out where
    git refuses the folder because another user owns it, and the variables (``GIT_DIR`` …) that are not followed.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        options = {"capture_output": True, "text": True, "check": True, "timeout": 60, "env": git_environment()}
        return subprocess.run(command, **options).stdout

    if led := [name for name in ELSEWHERE if name in os.environ]:
        warnings.warn(f"{', '.join(led)} set: not followed, the record names the commit of {root}", stacklevel=2)
    try:
        prefix, commit = git("rev-parse", "--show-prefix", "HEAD").split("\n")[:2]
        changes = git("status", "--porcelain", "--untracked-files=all", "--", ".", ":!results").splitlines()
    except (OSError, subprocess.SubprocessError) as error:
        if "dubious ownership" in str(getattr(error, "stderr", "")):
            fix = f"git config --global --add safe.directory {root}"
            warnings.warn(
                f"the record names no commit: another user owns {root}. To let git read it: {fix}", stacklevel=2
            )
        return "unknown", None
    if prefix:  # the folder was unpacked inside somebody else's checkout
        return "unknown", None
    return commit, any(not c.startswith("??") or c[3:].strip('"').startswith("xai_utils/") for c in changes)


def cpu_name() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")  # Linux; elsewhere Python's own, shorter name
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor() or platform.machine()])[0]


def environment() -> dict[str, Any]:
    """Python, packages, platform, hardware, PyTorch's threads and peak memory so far, as a record holds them."""
    import torch  # here: what only reads records does without its two seconds

    affinity = getattr(os, "sched_getaffinity", None)  # the cores that this process may use; Linux only
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "hardware": {
            "cpu": cpu_name(),
            "kernels": torch.backends.cpu.get_cpu_capability(),  # AVX2, AVX512 …: processors of one name may differ
            "cores": len(affinity(0)) if affinity else psutil.cpu_count() or 1,
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        },
        "threads": torch.get_num_threads(),
        "peak_memory_mib": round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1),  # bytes there, KiB here
    }
