"""Downloads by pooch: https only (http on this machine), no redirect to anything less, finished files never again."""

import errno
import functools
import ipaddress
import logging
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

import pooch
import requests
from pooch.downloaders import doi_to_repository
from tqdm import tqdm

RETRIES = 1  # of each address, if the connection broke or the file was wrong
CHUNK = 1 << 20
SLOWEST, GRACE = 20_000, 600.0  # bytes a second, and seconds besides: an address that needs longer is given up
SLACK = 1 << 26  # bytes: an archive that its host packs anew may have another size
pooch.get_logger().setLevel(logging.ERROR)


def is_safe(url: str) -> bool:
    """Whether the address is https, a DOI, or http on this machine."""
    scheme, host = urlsplit(url).scheme, urlsplit(url).hostname or ""
    try:
        own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        own = host == "localhost"
    return scheme in ("https", "doi") or (scheme == "http" and own)


def download(
    urls: Sequence[str], path: Path, *, size: int, known_hash: str, timeout: float, limit: float | None = None
) -> None:
    """Bring one file to `path`, unless it is there: it appears only when it is whole and its hash is right.

    Args:
        urls: addresses of the same file, tried in turn; "doi:<DOI>/<file>" for one in a repository that pooch knows.
        path: where to; what pooch leaves behind when it is killed has another name.
        size: bytes; about, where there is no hash.
        known_hash: "sha256:…" or "md5:…"; "" for an archive that its host packs on demand.
        timeout: seconds without a byte after which a connection counts as stalled.
        limit: seconds that each address has in all, retries and redirects included: a server that drips byte after
            byte is never silent. None: `GRACE`, and what `size` takes at `SLOWEST`.

    Raises:
        ValueError: an address that is neither https nor on this machine, or a timeout that is not above 0.
        ConnectionError: no address delivered the file; one line for each says why.
        OSError: the file could not be written (disk full, no permission).
    """
    if bad := [url for url in urls if not is_safe(url)]:
        raise ValueError(f"{bad[0]!r} is refused: data come by https:// only (http:// on this machine, for tests)")
    if not timeout > 0:
        raise ValueError(f"timeout is {timeout!r}, expected seconds above 0")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() and (free := shutil.disk_usage(path.parent).free) < size:
        raise OSError(errno.ENOSPC, f"{path} could not be written: {size} bytes needed, {free} free")
    failures, limit = [], GRACE + size / SLOWEST if limit is None else limit
    for url in urls:
        options = {"timeout": timeout, "hooks": {"response": _refuse_unsafe}} | _without_proxy(url)
        try:
            _within(limit, functools.partial(_from_one, url, path, size, known_hash, options))
            return
        except (requests.RequestException, ValueError) as error:
            failures.append(f"{url}: {_reason(error, timeout)}")
        except OSError as error:  # a network error is a RequestException: this one is the disk's
            raise OSError(error.errno, f"{path} could not be written: {error.strerror or error}") from error
    raise ConnectionError(f"{path.name} could not be loaded from " + "; nor from ".join(failures))


def _from_one(
    url: str, path: Path, size: int, known_hash: str, options: dict[str, Any], given_up: threading.Event
) -> None:
    if url.startswith("doi:"):
        address, known = _in_repository(url, known_hash, options)
    else:
        address, known = url, known_hash
    keeper = pooch.create(
        path.parent, "", registry={path.name: known or None}, urls={path.name: address}, retry_if_failed=RETRIES
    )
    keeper.fetch(path.name, downloader=_to_file(size, options, given_up))


class _TooSlow(requests.RequestException):
    """An address used up its time."""


def _within(seconds: float, action: Callable[[threading.Event], None]) -> None:
    """Do something in a thread of its own, and wait for it for some seconds, whatever it waits for.

    What is given up is told by the event that it gets; it ends at its next byte, or with this process.
    """
    errors: list[BaseException] = []
    given_up = threading.Event()

    def run() -> None:
        try:
            action(given_up)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
        if thread.is_alive():
            raise _TooSlow(f"not done within {seconds:g} s")
    except BaseException:
        given_up.set()
        raise
    if errors:
        raise errors[0]


def _in_repository(url: str, known_hash: str, options: dict[str, Any]) -> tuple[str, str]:
    """Address and hash of a file that a DOI's repository (FigShare, Zenodo) states."""
    doi, _, file = url.removeprefix("doi:").rpartition("/")
    try:
        repository, keeper = doi_to_repository(doi, **options), pooch.create(".", "")
        repository.populate_registry(keeper)
        if file not in keeper.registry and len(keeper.registry) == 1:  # the record's one file has another name
            (file,) = keeper.registry
        address = repository.download_url(file)
        if not is_safe(address):
            raise ValueError(f"the repository names {address}, which is refused: not https")
        return address, known_hash or keeper.registry[file]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"the repository's answer was not understood ({type(error).__name__}: {error})") from error


def _refuse_unsafe(response: requests.Response, *_: object, **__: object) -> None:
    """Called by requests for every answer, before it follows a redirect."""
    if response.is_redirect:
        goal = urljoin(response.url, response.headers["location"])
        if not is_safe(goal) or urlsplit(goal).scheme < urlsplit(response.url).scheme:  # http after https, too
            raise requests.exceptions.InvalidURL(f"redirect to {goal} refused: not https")


def _without_proxy(url: str) -> dict[str, Any]:
    """No proxy stands between this machine and itself."""
    return {"proxies": {"http": "", "https": "", "all": ""}} if urlsplit(url).scheme == "http" else {}


def _reason(error: Exception, timeout: float) -> str:
    """An error in few words, without the layers of the network's libraries."""
    if isinstance(error, requests.Timeout) or "Read timed out" in str(error):
        return f"no byte for {timeout:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return f"its certificate is not trusted ({error})"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke before the end"
    if isinstance(error, requests.ConnectionError):
        return "the host cannot be reached"
    return str(error)


class _Counted:
    """A file being written that shows its progress and stops an answer far larger than it should be."""

    def __init__(self, out: BinaryIO, bar: tqdm, limit: int, given_up: threading.Event) -> None:
        self._out, self._bar, self._limit, self._got, self._given_up = out, bar, limit, 0, given_up

    def write(self, data: bytes) -> None:
        """Write some bytes; an error of the network if there are more than the limit by now, or nobody waits."""
        if self._given_up.is_set():
            raise _TooSlow("given up")
        self._got += len(data)
        if self._got > self._limit:
            raise requests.exceptions.ContentDecodingError(f"more than {self._limit} bytes came; stopped")
        self._out.write(data)
        self._bar.update(len(data))

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._out.flush()


def _to_file(size: int, options: dict[str, Any], given_up: threading.Event) -> Callable[[str, str, pooch.Pooch], None]:
    """Pooch's downloader with a progress bar in bytes and a limit."""
    load = pooch.HTTPDownloader(chunk_size=CHUNK, **options)

    def downloader(url: str, path: str, keeper: pooch.Pooch) -> None:
        if given_up.is_set():
            raise _TooSlow("given up")
        bar = tqdm(desc=urlsplit(url).hostname, total=size, unit="B", unit_scale=True, disable=not sys.stderr.isatty())
        with bar, open(path, "wb") as out:
            load(url, _Counted(out, bar, size * 2 + SLACK, given_up), keeper)

    return downloader
