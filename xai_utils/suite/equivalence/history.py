"""The repository's past, read from git's own store: which commit a map of hashes belongs to, and its files on disk."""

import itertools
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

from xai_utils.suite import provenance
from xai_utils.suite.chain import Modules

PARTS = ("xai_utils", "notebooks", "data")  # what a run reads of a checkout, and results/*.yaml


class NotPossible(RuntimeError):
    """A comparison that cannot be made here; nothing was written."""


class History:
    """The commits of a checkout.

    Raises:
        NotPossible: no git, or no history.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._hashes: dict[tuple[str, str], str | None] = {}
        try:
            self.head = self.git("rev-parse", "HEAD").strip()
            above = self.git("rev-parse", "--show-prefix").strip()
        except NotPossible as error:
            raise NotPossible(f"no git history: {error}. Work in a clone of the repository.") from None
        if above:
            raise NotPossible(f"no git history: {root} lies inside another repository. Work in a clone of its own.")

    def git(self, *words: str) -> str:
        """What a git command prints."""
        return self._raw(*words).decode()

    def _raw(self, *words: str, given: bytes | None = None) -> bytes:
        command = ["git", "-C", str(self.root), *words]
        try:
            environment = provenance.git_environment()
            return subprocess.run(
                command, input=given, capture_output=True, check=True, timeout=120, env=environment
            ).stdout
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            raise NotPossible(f"git {' '.join(words[:2])}: {said or error}") from None
        except (OSError, subprocess.SubprocessError) as error:
            raise NotPossible(f"git {' '.join(words[:2])}: {error}") from None

    def dirty(self) -> list[str]:
        """Files that are not as HEAD has them; untracked ones in what a run reads, too."""
        changes = self.git("status", "--porcelain", "--untracked-files=all", "--", ".", ":!results/*/*").splitlines()
        code = ("xai_utils/", "notebooks/", "data/splits/", "data/boxes/")
        return [c[3:].strip('"') for c in changes if not c.startswith("??") or c[3:].strip('"').startswith(code)]

    def shallow(self) -> bool:
        """Whether the clone lacks older commits."""
        return self.git("rev-parse", "--is-shallow-repository").strip() == "true"

    def is_ancestor(self, commit: str) -> bool:
        """Whether HEAD descends from a commit, or is it."""
        try:
            self.git("merge-base", "--is-ancestor", commit, "HEAD")
        except NotPossible:
            return False
        return True

    def commits(self) -> list[str]:
        """HEAD and its first parents, newest first."""
        return self.git("rev-list", "--first-parent", "HEAD").split()

    def blobs(self, commit: str) -> dict[str, str]:
        """Every file of a commit: path → name of its content."""
        lines = self.git("ls-tree", "-r", "-z", commit).split("\0")
        entries = (line.partition("\t") for line in lines if line)
        return {path: entry.split()[2] for entry, _, path in entries}

    def text(self, commit: str, path: str) -> str | None:
        """A file's text at a commit; None if it is not there."""
        try:
            return self.git("show", f"{commit}:{path}")
        except NotPossible:
            return None

    def hashes(self, commit: str, paths: Iterable[str]) -> dict[str, str | None]:
        """Content hashes of files at a commit, as records hold them; None where there is no such file."""
        there = self.blobs(commit)
        wanted = [(path, there[path]) for path in paths if path in there]
        new = [pair for pair in wanted if (pair[1], Path(pair[0]).suffix) not in self._hashes]
        for path, content in self._contents(new):
            key = there[path], Path(path).suffix
            try:
                self._hashes[key] = provenance.hash_text(content.decode(), Path(path))
            except ValueError:
                self._hashes[key] = None
        return {path: self._hashes.get((there.get(path, ""), Path(path).suffix)) for path in paths}

    def _contents(self, wanted: Sequence[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
        out = self._raw("cat-file", "--batch", given="".join(f"{blob}\n" for _, blob in wanted).encode())
        start = 0
        for path, _ in wanted:
            line = out.index(b"\n", start)
            size = int(out[start:line].split()[2])
            yield path, out[line + 1 : line + 1 + size]
            start = line + size + 2

    def last_current(self, maps: Sequence[Modules], hints: Iterable[str]) -> list[str | None]:
        """For each map the newest commit at which it was that of the files; None: there is none.

        HEAD and its first parents are looked at, then `hints`, commits that records and entries name.
        """
        found: list[str | None] = [None] * len(maps)
        more = (commit for commit in dict.fromkeys(hints) if self.is_ancestor(commit))
        for commit in itertools.chain(self.commits(), more):
            missing = [place for place, known in enumerate(found) if known is None]
            if not missing:
                break
            now = self.hashes(commit, {name for place in missing for name in maps[place]})
            for place in missing:
                if all(now[name] == value for name, value in maps[place].items()):
                    found[place] = commit
        return found

    def unpack(self, commit: str, folder: Path) -> None:
        """The parts of a commit that a run reads, in a folder."""
        archive = self._raw("archive", "--format=tar", commit, "--", *self._present(commit))
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")

    def _present(self, commit: str) -> list[str]:
        files = self.blobs(commit)
        folders = [part for part in PARTS if any(path.startswith(f"{part}/") for path in files)]
        return folders + [path for path in files if re.fullmatch(r"results/[^/]+\.yaml", path)]
