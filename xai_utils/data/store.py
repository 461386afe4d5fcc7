"""Where data files are, whether they are intact, and how they are fetched.

Look-up order: $XAI_DATA (prepared files, never written to), then <repository>/data. A set is taken from the first of
the two that holds all its files. Only `fetch` downloads. A relative $XAI_DATA counts from the repository's root,
because notebooks run in several folders.
"""

import errno
import hashlib
import http.client
import ipaddress
import os
import shutil
import stat
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

ATTEMPTS = 2  # per mirror, if the connection broke: the second goes on where the first stopped
CHUNK = 1 << 20
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


class DataSet(BaseModel):
    """One entry of data/registry.yaml; data/README.md explains the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    title: str
    licence: str
    source: str
    citation: str
    recipe: Literal["direct", "later", "embedded"]  # what `fetch` can do
    origin_tried: bool
    origin_urls: tuple[str, ...]
    origin_files: tuple[DataFile, ...]
    files: tuple[DataFile, ...]


def registry() -> dict[str, DataSet]:
    """All known sets, from <repository>/data/registry.yaml. ValueError for an entry that is not valid."""
    path = download_root() / "registry.yaml"
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


def place(dataset: DataSet) -> tuple[str, Path | None]:
    """Where a set is, without checksums: ("prepared" | "origin" | "embedded" | "missing", folder)."""
    if dataset.recipe == "embedded":
        return "embedded", None
    fetched = "origin" if dataset.recipe == "direct" else "prepared"  # no recipe: data/ can only hold a copy
    for variant, root in (("prepared", prepared_root()), (fetched, download_root())):
        if root and all((root / file.path).is_file() for file in dataset.files):
            return variant, root
    return "missing", None


def locate(name: str) -> tuple[dict[str, Path], dict[str, str]]:
    """Find a set's files and verify them. Never downloads.

    Returns:
        The files by registered path, and the provenance: name, sha256 (of one file its own, else `sha256_of_lines`),
        variant ("prepared" or "origin").

    Raises:
        ValueError: unknown name, or a damaged file (under data/ it is moved aside; in $XAI_DATA it is left alone).
        FileNotFoundError: the set is in none of the places.
    """
    dataset = entry(name)
    variant, root = place(dataset)
    ways = (
        f"(1) set XAI_DATA to a folder that holds a prepared copy, or (2) run `python -m xai_utils.data fetch {name}`"
    )
    if root is None:
        lines = [f"data set {name!r} ({dataset.title}) was not found. Looked in:"]
        for label, folder in (("XAI_DATA", prepared_root()), ("the repository's data folder", download_root())):
            lacks = [file.path for file in dataset.files if not (folder and (folder / file.path).is_file())]
            lines.append(f"  {label}: {folder} lacks {', '.join(lacks)}" if folder else f"  {label}: not set")
        raise FileNotFoundError("\n".join([*lines, f"To get it: {ways} while online."]))
    for file in dataset.files:
        if fault := problem(root / file.path, file):
            if root == prepared_root():
                raise ValueError(f"{fault}. It was left untouched: replace it by an intact copy, or unset XAI_DATA.")
            with _lock():
                aside = _move_aside(root / file.path, file)
            moved = f"moved to {aside}" if aside else "replaced meanwhile by another process: try again"
            raise ValueError(f"{fault}. It was {moved}. To get it again: {ways} while online.")
    checksums = {file.path: file.sha256 for file in dataset.files}
    total = sha256_of_lines(checksums) if len(checksums) > 1 else dataset.files[0].sha256
    return {path: root / path for path in checksums}, {"name": name, "sha256": total, "variant": variant}


def _lock() -> FileLock:
    """One writer at a time under data/, across processes and threads."""
    return FileLock(download_root() / ".lock")


def _move_aside(path: Path, file: DataFile) -> Path | None:
    """Rename a damaged file to <name>.corrupt-<n>; None if it is intact or gone by now. Call it under the lock."""
    if not path.is_file() or problem(path, file) is None:
        return None
    n = 1
    while (aside := path.with_name(f"{path.name}.corrupt-{n}")).exists():
        n += 1
    os.replace(path, aside)
    return aside


class _Failed(Exception):
    """A mirror did not deliver; `again`: another attempt at the same mirror can succeed."""

    def __init__(self, reason: str, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def fetch(
    name: str, *, mirror: str | None = None, timeout: float = 30.0, say: Callable[[str], None] = _say
) -> list[Path]:
    """Download a set from its public origin into <repository>/data, unless it is there already.

    Args:
        name: a name of the registry.
        mirror: base URL to use instead of the registered origins; https, or http on this machine.
        timeout: seconds without a byte after which a connection counts as stalled.
        say: receives one line for everything a user should know.

    Returns:
        The set's files ([] for an embedded set).

    Raises:
        ValueError: unknown name, unsafe mirror, timeout not above 0, or a damaged file in $XAI_DATA.
        NotImplementedError: the set has no recipe yet.
        ConnectionError: no mirror delivered the right bytes; a partial file stays and is continued next time.
        OSError: the file could not be written (disk full, no permission).
    """
    dataset = entry(name)
    urls = dataset.origin_urls if mirror is None else (mirror,)
    if dataset.recipe == "embedded":
        say(f"{name}: nothing to fetch, it is embedded in a dependency")
        return []
    variant, root = place(dataset)
    if root and (variant == "prepared" or all(problem(root / file.path, file) is None for file in dataset.files)):
        paths = list(locate(name)[0].values())  # raises for a damaged prepared file
        say(f"{name}: already there ({variant}, {root})")
        return paths
    if dataset.recipe == "later":
        raise NotImplementedError(
            f"{name} cannot be fetched yet: the recipe comes with the paper that uses the set. With a prepared copy of "
            f"{', '.join(file.path for file in dataset.files)}, set XAI_DATA to the folder that holds it."
        )
    if bad := [url for url in urls if not _safe(url)]:
        raise ValueError(f"{bad[0]!r} is refused: data come by https:// only (http:// on this machine, for tests)")
    if not timeout > 0:
        raise ValueError(f"timeout is {timeout!r}, expected seconds above 0")
    target, prepared = download_root().resolve(), prepared_root()
    if prepared and target.is_relative_to(prepared):
        raise ValueError(f"XAI_DATA ({prepared}) holds the download folder {target} and is never written to: unset it.")
    try:
        held = (lock := _lock()).acquire(blocking=False)
    except Timeout:
        say(f"{name}: another fetch is running; waiting for it")
        held = lock.acquire()
    with held:
        for file in dataset.origin_files:
            path = target / file.path
            if aside := _move_aside(path, file):
                say(f"{name}: {path} was damaged (expected sha256 {file.sha256}); moved to {aside}")
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                _fetch_file(file, path, [f"{url.rstrip('/')}/{path.name}" for url in urls], timeout)
                say(f"{name}: {path} ({file.bytes} bytes, checksum right)")
    return [target / file.path for file in dataset.files]


def _fetch_file(file: DataFile, path: Path, urls: Sequence[str], timeout: float) -> None:
    """Bring one file to `path`: mirrors in turn, checked, renamed only when it is whole."""
    part = path.with_name(f"{path.name}.part")
    failures = []
    for url in urls:
        for _ in range(ATTEMPTS):
            try:
                _download(url, file, part, timeout)
                os.replace(part, path)
                return
            except _Failed as failure:
                failures.append(f"  {url}: {failure}")
                if not failure.again:
                    break
            except OSError as error:  # every network error is a _Failed by now: this one is the disk's
                raise OSError(error.errno, f"{part} could not be written: {error.strerror or error}") from error
    kept = f"\n{part.stat().st_size} bytes are kept in {part}; the next fetch goes on there." if part.exists() else ""
    raise ConnectionError(
        f"{file.path} could not be fetched:\n" + "\n".join(failures) + kept + "\nCheck the connection and run fetch "
        "again, name another --mirror, or set XAI_DATA to a folder that holds a prepared copy."
    )


def _download(url: str, file: DataFile, part: Path, timeout: float) -> None:
    """Receive `url` into `part`, going on where an earlier attempt stopped, and check size and sha256."""
    have = part.stat().st_size if part.exists() else 0
    if have < file.bytes:
        if (free := shutil.disk_usage(part.parent).free) < file.bytes - have:
            raise OSError(errno.ENOSPC, f"No space left on device ({file.bytes - have} bytes needed, {free} free)")
        have = _receive(url, file, part, have, timeout)
    with part.open("rb") as stream:  # not sha256_of: a part may change within one tick of its time stamp
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    if actual != file.sha256:
        part.unlink()  # never continued: these bytes are wrong
        raise _Failed(f"wrong bytes: sha256 {actual}, expected {file.sha256}", again=have > 0)


def _receive(url: str, file: DataFile, part: Path, have: int, timeout: float) -> int:
    """Write what the server sends; returns how many bytes of an earlier attempt were used."""
    headers = {"User-Agent": "xai-utils", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    handlers = [_SafeRedirects(), *([urllib.request.ProxyHandler({})] if _loopback(url) else [])]
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.build_opener(*handlers).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the server cannot go on from here: start anew
            part.unlink(missing_ok=True)
        raise _Failed(f"HTTP {error.code} {error.reason}", again=error.code == 416) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Failed(f"no connection: {error}") from error
    with response:
        if not (response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")):
            have = 0  # the server sends the whole file
        size = have
        bar = tqdm(desc=part.stem, total=file.bytes, initial=have, unit="B", unit_scale=True, disable=None)
        with bar, part.open("ab" if have else "wb") as out:
            while size <= file.bytes:
                try:
                    chunk = response.read1(CHUNK)
                except TimeoutError as error:
                    text = f"stalled: no byte for {timeout:g} s, {size} of {file.bytes} received"
                    raise _Failed(text, again=True) from error
                except (OSError, http.client.HTTPException) as error:
                    raise _Failed(f"broken after {size} of {file.bytes} bytes: {error}", again=True) from error
                if not chunk:
                    break
                out.write(chunk)
                out.flush()  # a killed process loses nothing that was received
                bar.update(len(chunk))
                size += len(chunk)
    if size > file.bytes:
        part.unlink()
        raise _Failed(f"wrong bytes: more than the expected {file.bytes}", again=have > 0)
    if size < file.bytes:
        raise _Failed(f"truncated: {size} of {file.bytes} bytes", again=True)
    return have


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _safe(url: str) -> bool:
    """Whether the URL is https, or http on this machine."""
    return urlsplit(url).scheme == "https" or (urlsplit(url).scheme == "http" and _loopback(url))


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects may not leave https."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not _safe(newurl):
            raise urllib.error.HTTPError(newurl, code, f"redirect to {newurl} refused: not https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def unpack(archive: Path, folder: Path, *, limit: int = 2 << 30) -> Path:
    """Unpack a zip into a new `folder`: all of it or nothing.

    Args:
        archive: the zip file.
        folder: must not exist yet; appears only when every member is written.
        limit: largest total size in bytes, counted while writing (a zip's own figures may lie).

    Raises:
        ValueError: not a zip, damaged, larger than `limit`, or a member that is encrypted, a link, absolute,
            repeated, or leads out of the folder.
        FileExistsError: `folder` exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; remove or rename it before unpacking {archive}")
    work = folder.with_name(f".{folder.name}.{os.getpid()}")
    work.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as source:
            _check_members(source, archive)
            for member in source.infolist():
                goal = work / member.filename
                (goal if member.is_dir() else goal.parent).mkdir(parents=True, exist_ok=True)
                if member.is_dir():
                    continue
                with source.open(member) as stream, goal.open("wb") as out:
                    while chunk := stream.read(CHUNK):
                        if (limit := limit - len(chunk)) < 0:
                            raise ValueError(f"{archive} unpacks to more than the limit; nothing was unpacked")
                        out.write(chunk)
        os.replace(work, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"{archive} is not an intact zip file: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _check_members(source: zipfile.ZipFile, archive: Path) -> None:
    """ValueError for the first member that must not be unpacked."""
    seen = set()
    for member in source.infolist():
        name, parts = member.orig_filename, PurePosixPath(member.filename).parts
        faults = {
            "is absolute": name.startswith("/") or PureWindowsPath(name).drive,
            "leads out of the folder": ".." in parts or "\\" in name or "\0" in name,
            "is a link or a special file": stat.S_IFMT(member.external_attr >> 16)
            not in (0, stat.S_IFREG, stat.S_IFDIR),
            "is encrypted": member.flag_bits & 1,
            "comes twice or has no name": parts in seen or not parts,
        }
        if reason := next((text for text, bad in faults.items() if bad), None):
            raise ValueError(f"{archive}: member {name!r} {reason}; nothing was unpacked")
        seen.add(parts)
