"""Where data files are, and whether they are intact.

Look-up order: $XAI_DATA (never written to), then <repository>/data. A set is taken from the first of the two that holds
all its files: as they were prepared once, or as `origins.fetch` built them from their public origin. A relative
$XAI_DATA counts from the repository's root, because notebooks run in several folders.
"""

import functools
import hashlib
import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import yaml
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field

from xai_utils.data import contents

_verified: dict[tuple[str, int, int], str] = {}  # (path, size, mtime in ns) -> sha256, for this process only


def repository_root() -> Path:
    """Folder of the checkout: $XAI_ROOT, else the nearest parent that holds results/reported.yaml.

    Raises:
        FileNotFoundError: the package is used outside a checkout, or $XAI_ROOT is no folder.
    """
    if chosen := os.environ.get("XAI_ROOT"):
        if not Path(chosen).is_dir():
            raise FileNotFoundError(f"XAI_ROOT is {chosen!r}, which is not a folder. Correct it or unset it.")
        return Path(chosen).resolve()
    for parent in (here := Path(__file__).resolve()).parents:
        if (parent / "results" / "reported.yaml").is_file():
            return parent
    raise FileNotFoundError(
        f"no repository found above {here.parent} (no results/reported.yaml in any parent folder). xai_utils works "
        "from a checkout: install it there with `pip install -e .`, or set XAI_ROOT to the checkout's folder."
    )


def resolve(path: str | os.PathLike[str]) -> Path:
    """Absolute path; a relative one counts from the repository's root."""
    path = Path(path).expanduser()
    return (path if path.is_absolute() else repository_root() / path).resolve()


def root_of(folder: str | os.PathLike[str]) -> Path:
    """The folder of your own images. ValueError where none is named, FileNotFoundError where there is none."""
    if not str(folder):
        raise ValueError("folder is empty: name the folder of your images, such as -p folder /path/to/images")
    root = resolve(folder)
    if not root.is_dir():
        where = "" if Path(folder).expanduser().is_absolute() else "; a relative path counts from the repository"
        raise FileNotFoundError(f"image folder {root} does not exist, or is not a folder{where}")
    return root


def prepared_root() -> Path | None:
    """Folder of $XAI_DATA, or None if it is not set. FileNotFoundError if it is no folder."""
    chosen = os.environ.get("XAI_DATA")
    folder = resolve(chosen) if chosen else None
    if folder and not folder.is_dir():
        raise FileNotFoundError(
            f"XAI_DATA is {chosen!r}, but {folder} is not a folder. Set it to the prepared data's folder, or unset it."
        )
    return folder


def download_root() -> Path:
    """Folder that `fetch` writes to: <repository>/data."""
    return repository_root() / "data"


class DataFile(BaseModel):
    """One file of a set: path below a data folder (relative, no `..`), size, checksum."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    path: str = Field(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$")
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Origin(BaseModel):
    """One download of a set; data/README.md explains the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    urls: tuple[str, ...] = Field(min_length=1)
    bytes: int = Field(gt=0)
    hash: str = Field(default="", pattern=r"^((md5|sha256):[0-9a-f]+)?$")
    top: str = ""
    whole: bool = False
    besides: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Name of the downloaded file: the last part of its address."""
        return self.urls[0].rpartition("/")[2]


class DataSet(BaseModel):
    """One entry of data/registry.yaml; data/README.md explains the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    title: str
    licence: str
    terms: str = ""
    published: bool = True
    source: str
    citation: str
    recipe: Literal["embedded", "direct", "build", "unpack"]  # what `fetch` does
    module: str = ""
    seconds: int = 0
    standard: bool = False
    origin_tried: str = ""
    origins: tuple[Origin, ...] = ()
    alternatives: tuple[str, ...] = ()
    files: tuple[DataFile, ...] = ()
    folder: str = Field(default="", pattern=r"^[\w-]*$")

    @property
    def command(self) -> str:
        """The one command that gets the set."""
        return f"python -m xai_utils.data fetch {self.name}" + (f" --accept {self.name}" if self.terms else "")


def registry() -> dict[str, DataSet]:
    """All known sets, from <repository>/data/registry.yaml. ValueError for an entry that is not valid."""
    path = download_root() / "registry.yaml"
    return dict(_registry(path, path.stat().st_mtime_ns))


@functools.lru_cache(maxsize=8)
def _registry(path: Path, _modified_ns: int) -> dict[str, DataSet]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {name: DataSet(name=name, **fields) for name, fields in entries.items()}
    except (TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not valid: {error}") from error


def unknown_name(name: object, known: Iterable[str]) -> ValueError:
    """The error for a data set that does not exist, with the closest names."""
    known = sorted(known)
    close = get_close_matches(str(name).lower(), known, n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return ValueError(f"unknown data set {name!r}.{hint} Known: {', '.join(known)}.")


def entry(name: str) -> DataSet:
    """The registry's entry of one set; ValueError with the closest names if there is none."""
    sets = registry()
    if name not in sets:
        raise unknown_name(name, sets)
    return sets[name]


def sha256_of(path: Path) -> str:
    """Checksum of a file, computed once per process while its size and time stamp stay the same."""
    state = path.stat()
    key = (str(path), state.st_size, state.st_mtime_ns)
    if key not in _verified:
        with path.open("rb") as stream:
            _verified[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _verified[key]


def sha256_of_lines(checksums: dict[str, str]) -> str:
    """Checksum of several files: sha256 over the sorted lines "<path> <sha256 of the file>"."""
    lines = "".join(f"{path} {checksums[path]}\n" for path in sorted(checksums))
    return hashlib.sha256(lines.encode()).hexdigest()


def problem(path: Path, file: DataFile) -> str | None:
    """None if the file has the registered size and checksum, else one sentence with both values."""
    if (size := path.stat().st_size) != file.bytes:
        return f"{path} is damaged: it has {size} bytes, expected {file.bytes} (expected sha256 {file.sha256})"
    actual = sha256_of(path)
    return None if actual == file.sha256 else f"{path} is damaged: its sha256 is {actual}, expected {file.sha256}"


def unpublished() -> frozenset[str]:
    """Names of the sets for research only: numbers and maps may be shown, no picture of theirs."""
    return frozenset(name for name, dataset in registry().items() if not dataset.published)


def place(dataset: DataSet) -> tuple[str, Path | None]:
    """Where a set is, without checksums: ("prepared" | "origin" | "embedded" | "missing", folder)."""
    if dataset.recipe == "embedded":
        return "embedded", None
    for root in filter(None, (prepared_root(), download_root())):
        if dataset.folder and (root / dataset.folder).is_dir():
            return "origin", root
        if dataset.files and all((root / file.path).is_file() for file in dataset.files):
            fetched = dataset.recipe == "direct" and root == download_root()
            return "origin" if fetched or contents.is_built(root / dataset.files[0].path) else "prepared", root
    return "missing", None


def listed_checksum(dataset: DataSet) -> str:
    """What a record names as the set's checksum, prepared or built: `sha256_of_lines` of its files.

    The files are those in the set's archive (data/contents/<name>.csv), or those that the registry lists.
    """
    if dataset.recipe == "build":
        listed = contents_list(dataset)
        return _listed_checksum(listed, listed.stat().st_mtime_ns if listed.is_file() else 0)
    return sha256_of_lines({file.path: file.sha256 for file in dataset.files})


@functools.lru_cache(maxsize=64)
def _listed_checksum(listed: Path, _modified_ns: int) -> str:
    return sha256_of_lines({path: file.sha256 for path, file in contents.read(listed).items()})


def same_content(name: str, sha256: str, root: Path | None = None) -> bool:
    """Whether a checksum in a record means the content that the set has today.

    That is so for `listed_checksum`, for the prepared archive's own sha256, which older records name, and for the set
    as it was built here; each also as counted together with data/splits/<name>.csv of the checkout `root` (default:
    this one), as `road_cracks` does. A name that is not registered, or a set without files, has nothing to compare
    with: True.
    """
    dataset = registry().get(name)
    if not dataset or not dataset.files:
        return True
    lists = (root or repository_root()) / "data" / "splits" / f"{name}.csv"
    if len(dataset.files) == 1 and sha256 in _with_list(dataset, dataset.files[0].sha256, lists):
        return True
    if sha256 in _with_list(dataset, listed_checksum(dataset), lists):
        return True
    try:
        return sha256 in _with_list(dataset, locate(name)[1]["sha256"], lists)
    except (FileNotFoundError, ValueError):
        return False


def _with_list(dataset: DataSet, checksum: str, lists: Path) -> set[str]:
    """A set's checksum, and that of the set with a list of crops counted in."""
    if not lists.is_file():
        return {checksum}
    return {checksum, sha256_of_lines({dataset.files[0].path: checksum, f"splits/{lists.name}": sha256_of(lists)})}


def contents_list(dataset: DataSet) -> Path:
    """The list of the files in a set's archive."""
    return download_root() / "contents" / f"{dataset.name}.csv"


def fault(dataset: DataSet, file: DataFile, root: Path) -> tuple[str | None, contents.Comparison | None]:
    """What is wrong with a file of a set (None: nothing), in one sentence; and how one that was built here differs."""
    path = root / file.path
    if not contents.is_built(path):
        return problem(path, file), None
    found = contents.compare(path, contents_list(dataset))
    return (f"{path} is damaged: {found.summary()}" if found.wrong else None), found


def locate(name: str) -> tuple[dict[str, Path], dict[str, str | int]]:
    """Find a set's files and verify them. Never downloads.

    Returns:
        The files by registered path, and the provenance: name, sha256 (`listed_checksum`), variant ("prepared" or
        "origin"). Where a set was built with other bytes than the prepared one (another JPEG library), its sha256 is
        that of its own files, and files_differ and grey_levels (the largest difference, 0 … 255) say how far it is off.

    Raises:
        ValueError: unknown name, or a damaged file (under data/ it is moved aside; in $XAI_DATA it is left alone).
        FileNotFoundError: the set is in none of the places.
    """
    dataset = entry(name)
    variant, root = place(dataset)
    if root is None:
        lines = [f"data set {name!r} ({dataset.title}) was not found. Looked in:"]
        for label, folder in (("XAI_DATA", prepared_root()), ("the repository's data folder", download_root())):
            lacks = [file.path for file in dataset.files if not (folder and (folder / file.path).is_file())]
            lines.append(f"  {label}: {folder} lacks {', '.join(lacks)}" if folder else f"  {label}: not set")
        raise FileNotFoundError("\n".join([*lines, f"To get it, run: {dataset.command}"]))
    provenance: dict[str, str | int] = {"name": name, "sha256": listed_checksum(dataset), "variant": variant}
    for file in dataset.files:
        wrong, found = fault(dataset, file, root)
        if wrong and root == prepared_root():
            raise ValueError(f"{wrong}. It was left untouched: replace it by an intact copy, or unset XAI_DATA.")
        if wrong:
            with lock():
                aside = move_aside(dataset, file)
            moved = f"moved to {aside}" if aside else "replaced meanwhile by another process: try again"
            raise ValueError(f"{wrong}. It was {moved}. To get it again, run: {dataset.command}")
        if found and found.differ:
            provenance |= {"files_differ": found.differ, "grey_levels": found.grey_levels}
            provenance["sha256"] = sha256_of_lines(found.checksums)
    return {file.path: root / file.path for file in dataset.files}, provenance


def lock() -> FileLock:
    """One writer at a time under data/, across processes and threads."""
    return FileLock(download_root() / ".lock")


def move_aside(dataset: DataSet, file: DataFile) -> Path | None:
    """Rename a damaged file under data/ to <name>.corrupt-<n>; None if it is intact or gone. Call it under the lock."""
    path = download_root() / file.path
    if not path.is_file() or fault(dataset, file, download_root())[0] is None:
        return None
    n = 1
    while (aside := path.with_name(f"{path.name}.corrupt-{n}")).exists():
        n += 1
    os.replace(path, aside)
    return aside
