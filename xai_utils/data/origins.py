"""From a set's public origin to the prepared set: download, check every file, build, compare every file.

Archives are read in place; only the full RDD2022, which is kept as a folder, is unpacked. Work goes on in
data/.fetch/<name>, and what is finished is moved to its place by one rename: nothing half-built is ever found.
"""

import csv
import hashlib
import os
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path, PurePosixPath, PureWindowsPath

from filelock import Timeout
from tqdm import tqdm

from xai_utils.data import contents, store
from xai_utils.data.store import DataSet

LIMIT = 1 << 28  # bytes of one file in an archive of images
FULL = 1 << 36  # bytes that a set unpacks to which is kept as a folder
CHUNK = 1 << 20
HEADER = ["path", "bytes", "sha256"]
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)  # of a damaged archive


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def fetch(
    name: str,
    *,
    mirror: str | None = None,
    accept: bool = False,
    timeout: float = 30.0,
    say: Callable[[str], None] = _say,
) -> list[Path]:
    """Get a set from its public origin into <repository>/data, unless it is there already.

    Args:
        name: a name of the registry.
        mirror: base address to use instead of the registered ones, for files of the same names; https, or http on this
            machine.
        accept: the set's terms of use, if it has some (`DataSet.terms`), are accepted.
        timeout: seconds without a byte after which a connection counts as stalled.
        say: receives one line for everything a user should know.

    Returns:
        The set's files ([] for an embedded set), or the folder of one that is kept as a folder.

    Raises:
        ValueError: unknown name, unsafe mirror, timeout not above 0, a damaged file in $XAI_DATA, an archive that is
            not safe to read, or an origin or result that is not what the repository lists.
        PermissionError: the terms of use were not accepted.
        ConnectionError: no address delivered the right bytes.
        OSError: a file could not be written (disk full, no permission).
    """
    dataset = store.entry(name)
    if dataset.recipe == "embedded":
        say(f"{name}: nothing to fetch, it is embedded in a dependency")
        return []
    if there := _there(dataset, say):
        return there
    if dataset.terms and not accept:
        raise PermissionError(
            f"{name} is not loaded before you accept its terms of use: {dataset.terms} If you do: {dataset.command}"
        )
    if dataset.terms:
        say(f"{name}: terms of use: {dataset.terms}")
    target, prepared = store.download_root().resolve(), store.prepared_root()
    if prepared and target.is_relative_to(prepared):
        raise ValueError(f"XAI_DATA ({prepared}) holds the download folder {target} and is never written to: unset it.")
    target.mkdir(parents=True, exist_ok=True)
    try:
        held = (lock := store.lock()).acquire(blocking=False)
    except Timeout:
        say(f"{name}: another fetch is running; waiting for it")
        held = lock.acquire()
    with held:
        if there := _there(dataset, say):  # the other fetch brought it
            return there
        for file in dataset.files:
            if aside := store.move_aside(dataset, file):
                say(f"{name}: {target / file.path} was damaged; moved to {aside}")
        work = target / ".fetch" / name
        if dataset.recipe == "direct":
            _bring(dataset, mirror, target, timeout)
        else:
            _clear(work, keep=[origin.file for origin in dataset.origins])
            _bring(dataset, mirror, work, timeout)
            (_build if dataset.recipe == "build" else _unpack)(dataset, work, target, say)
        shutil.rmtree(work, ignore_errors=True)
    if dataset.folder:
        return [target / dataset.folder]
    paths = [target / file.path for file in dataset.files]
    say(f"{name}: {', '.join(map(str, paths))}: checked")
    return paths


def _there(dataset: DataSet, say: Callable[[str], None]) -> list[Path]:
    """The set's files if they are there and intact; a damaged prepared file is an error."""
    variant, root = store.place(dataset)
    if root is None:
        return []
    if root == store.download_root() and any(store.fault(dataset, file, root)[0] for file in dataset.files):
        return []
    paths = [root / dataset.folder] if dataset.folder else list(store.locate(dataset.name)[0].values())
    say(f"{dataset.name}: already there ({variant}, {root})")
    return paths


def _bring(dataset: DataSet, mirror: str | None, folder: Path, timeout: float) -> None:
    """Download every file of a set's origin that is not in the folder yet."""
    from xai_utils.data.downloads import download  # here: requests takes a moment to load

    places = {PurePosixPath(file.path).name: file.path for file in dataset.files} if dataset.recipe == "direct" else {}
    for origin in dataset.origins:
        urls = (f"{mirror.rstrip('/')}/{origin.file}",) if mirror else origin.urls
        path = folder / places.get(origin.file, origin.file)
        try:
            download(urls, path, size=origin.bytes, known_hash=origin.hash, timeout=timeout)
        except ConnectionError as error:
            raise ConnectionError(
                f"{dataset.name}: {error}. Connect to the network and run the same command again, name a --mirror, or "
                "set XAI_DATA to a folder that holds the prepared set."
            ) from error


def _clear(work: Path, keep: Sequence[str]) -> None:
    """Remove what an earlier fetch left unfinished; its finished downloads stay."""
    for path in work.iterdir() if work.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in keep:
            path.unlink()


# --- archives, read in place


class Files(Mapping[str, bytes]):
    """The files in a set's origin archives, by their path below the archive's top folder; read when asked for."""

    def __init__(self) -> None:
        self._readers: dict[str, tuple[int, Callable[[], bytes]]] = {}

    def add(self, name: str, size: int, read: Callable[[], bytes]) -> None:
        """Note a file of `size` bytes that `read` returns."""
        self._readers[name] = size, read

    def size(self, name: str) -> int:
        """Bytes of a file, as its archive says."""
        return self._readers[name][0]

    def __getitem__(self, name: str) -> bytes:
        """One file's bytes. KeyError if there is none, ValueError if it is too large or cannot be read."""
        size, read = self._readers[name]
        if size > LIMIT:
            raise ValueError(f"{name} would unpack to {size} bytes, more than the limit of {LIMIT}")
        try:
            return read()
        except BROKEN as error:
            raise ValueError(f"{name} cannot be read: {error}") from error

    def __contains__(self, name: object) -> bool:
        """Whether there is a file of that name; it is not read."""
        return name in self._readers

    def __iter__(self) -> Iterator[str]:
        """Names, in the archives' order."""
        return iter(self._readers)

    def __len__(self) -> int:
        """Number of files."""
        return len(self._readers)


@contextmanager
def opened(archives: Iterable[tuple[Path, str]]) -> Iterator[Files]:
    """The files of some zip or tar archives; nothing is written to disk.

    Args:
        archives: path, and the folder that all members must lie in ("" = none).

    Raises:
        ValueError: no intact archive, or a member that is encrypted, a link, absolute, repeated, outside of that folder
            or leading out of it.
    """
    with ExitStack() as stack:
        files = Files()
        for path, top in archives:
            try:
                if zipfile.is_zipfile(path):
                    _add_zip(files, stack.enter_context(zipfile.ZipFile(path)), path, top)
                else:
                    _add_tar(files, stack.enter_context(tarfile.open(path)), path, top)
            except (*BROKEN, OSError) as error:
                raise ValueError(f"{path} is not an intact archive: {error}") from error
        yield files


def _add_zip(files: Files, source: zipfile.ZipFile, path: Path, top: str) -> None:
    check_members(source, path)
    for member in source.infolist():
        name = _below(member.filename, top, path)
        if not member.is_dir():
            files.add(name, member.file_size, lambda member=member: source.read(member))


def _add_tar(files: Files, source: tarfile.TarFile, path: Path, top: str) -> None:
    seen = set()
    for member in source:
        _refuse(member.name, PurePosixPath(member.name).parts in seen, not (member.isfile() or member.isdir()), path)
        seen.add(PurePosixPath(member.name).parts)
        if member.size > LIMIT:
            raise ValueError(f"{path}: {member.name} would unpack to {member.size} bytes, more than {LIMIT}")
        name = _below(member.name, top, path)
        if member.isfile():
            files.add(name, member.size, lambda member=member: source.extractfile(member).read())


def _below(name: str, top: str, archive: Path) -> str:
    parts = PurePosixPath(name).parts
    if top and (not parts or parts[0] != top):
        raise ValueError(f"{archive}: member {name!r} is not in the folder {top!r} that the archive should hold")
    return "/".join(parts[1:] if top else parts)


def check_members(source: zipfile.ZipFile, archive: Path) -> None:
    """ValueError for the first member of a zip file that must not be read."""
    seen = set()
    for member in source.infolist():
        parts = PurePosixPath(member.filename).parts
        special = stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)
        _refuse(member.orig_filename, parts in seen, special, archive, encrypted=bool(member.flag_bits & 1))
        seen.add(parts)


def _refuse(name: str, repeated: bool, special: bool, archive: Path, encrypted: bool = False) -> None:
    parts = PurePosixPath(name).parts
    faults = {
        "is absolute": name.startswith("/") or PureWindowsPath(name).drive,
        "leads out of the folder": ".." in parts or "\\" in name or "\0" in name,
        "is a link or a special file": special,
        "is encrypted": encrypted,
        "comes twice or has no name": repeated or not parts,
    }
    if reason := next((text for text, bad in faults.items() if bad), None):
        raise ValueError(f"{archive}: member {name!r} {reason}; nothing was unpacked")


# --- building an archive of images


def _build(dataset: DataSet, work: Path, target: Path, say: Callable[[str], None]) -> None:
    """Make the prepared archive from the downloads in `work`; ValueError if one of the two is not as listed."""
    (file,) = dataset.files
    half, listed = work / "half-built", store.contents_list(dataset)
    recipe = getattr(import_module(f"xai_utils.data.sets.{dataset.module}"), f"build_{dataset.name}")
    downloads = [(work / origin.file, origin.top) for origin in dataset.origins]
    try:
        with opened(downloads) as files:
            check_origin(dataset, files)
            _write_zip(half, recipe(files), total=len(contents.read(listed)), name=dataset.name)
    except ValueError as error:
        for path, _ in downloads:
            path.unlink(missing_ok=True)
        raise ValueError(f"{dataset.name}: {error}. The download was removed; run the same command again") from error
    except OSError as error:
        raise OSError(error.errno, f"{half} could not be written: {error.strerror or error}") from error
    found = contents.compare(half, listed)
    say(f"{dataset.name}: {found.summary()}")
    if found.wrong:
        raise ValueError(
            f"{dataset.name}: what was built is not the prepared set: {found.summary()}. Every file of the origin was "
            "right, so report this together with the versions of Python and Pillow"
        )
    (target / file.path).parent.mkdir(parents=True, exist_ok=True)
    os.replace(half, target / file.path)


def origin_list(name: str) -> dict[str, tuple[int, str]]:
    """Bytes and sha256 of the origin's files that a set is made of, from data/origins/<name>.csv; {} without a list."""
    path = store.download_root() / "origins" / f"{name}.csv"
    if not path.is_file():
        return {}
    head, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    if head != HEADER:
        raise ValueError(f"{path} has the columns {','.join(head)}, expected {','.join(HEADER)}; restore the file")
    return {name: (int(size), sha256) for name, size, sha256 in rows}


def check_origin(dataset: DataSet, files: Files) -> None:
    """ValueError that names what is missing, altered or, in folders that are used whole, too much."""
    listed = origin_list(dataset.name)
    missing = [name for name in listed if name not in files]
    altered = [
        name
        for name, (size, sha256) in listed.items()
        if name in files and (files.size(name) != size or hashlib.sha256(files[name]).hexdigest() != sha256)
    ]
    folders = {str(PurePosixPath(name).parent) for name in listed}
    whole = any(origin.whole for origin in dataset.origins)
    besides = {name for origin in dataset.origins for name in origin.besides}
    extra = [name for name in files if whole and str(PurePosixPath(name).parent) in folders and name not in listed]
    faults = {"missing": missing, "altered": altered, "not listed": [name for name in extra if name not in besides]}
    texts = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{' …' if len(names) > 3 else ''})"
        for kind, names in faults.items()
        if names
    ]
    if texts:
        raise ValueError(f"of {len(listed)} files of the origin, {', '.join(texts)}")


def _write_zip(path: Path, members: Iterable[tuple[str, bytes]], *, total: int, name: str) -> None:
    """Write a zip file whose bytes follow from its members alone: not compressed, one date, marked as built."""
    with zipfile.ZipFile(path, "w") as out:
        for member, data in tqdm(members, desc=f"building {name}", total=total, disable=not sys.stderr.isatty()):
            info = zipfile.ZipInfo(member, (2020, 1, 1, 0, 0, 0))
            info.external_attr, info.create_system = 0o644 << 16, 3
            out.writestr(info, data)
        out.comment = contents.BUILT


# --- a set that is kept as a folder


def _unpack(dataset: DataSet, work: Path, target: Path, say: Callable[[str], None]) -> None:
    """Unpack the downloads, and the zip files in them, to the set's folder."""
    half = work / "half-unpacked"
    half.mkdir()
    try:
        for origin in dataset.origins:
            outer = unpack(work / origin.file, work / "outer", limit=FULL)
            for inner in sorted(outer.rglob("*.zip")):
                folder = unpack(inner, half / inner.stem, limit=FULL)
                inner.unlink()
                if [path.name for path in folder.iterdir()] == [inner.stem]:  # Japan.zip holds a folder Japan
                    os.replace(folder, work / "single")
                    os.replace(work / "single" / inner.stem, folder)
                say(f"{dataset.name}: {inner.stem}: {sum(path.is_file() for path in folder.rglob('*'))} files")
        if not any(half.iterdir()):
            raise ValueError(f"{origin.file} holds no zip file of a country")
    except ValueError as error:
        raise ValueError(f"{dataset.name}: {error}") from error
    os.replace(half, target / dataset.folder)


def unpack(archive: Path, folder: Path, *, limit: int) -> Path:
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
    half = folder.with_name(f".{folder.name}.{os.getpid()}")
    half.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as source:
            check_members(source, archive)
            for member in tqdm(source.infolist(), desc=archive.name, disable=not sys.stderr.isatty()):
                goal = half / member.filename
                (goal if member.is_dir() else goal.parent).mkdir(parents=True, exist_ok=True)
                if member.is_dir():
                    continue
                with source.open(member) as stream, goal.open("wb") as out:
                    while chunk := stream.read(CHUNK):
                        if (limit := limit - len(chunk)) < 0:
                            raise ValueError(f"{archive} unpacks to more than the limit; nothing was unpacked")
                        out.write(chunk)
        os.replace(half, folder)
    except BROKEN as error:
        raise ValueError(f"{archive} is not an intact zip file: {error}") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return folder
