"""The prepared data sets in tests: the real files where they are at hand, and small ones that a test may break."""

import csv
import io
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from data_server import write_registry

from xai_utils.data import store

CHECKOUT = Path(__file__).resolve().parents[3]


@contextmanager
def real(name):
    """Paths of a set's files, as the checkout finds them while this is open; skips the test if they are missing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XAI_ROOT", str(CHECKOUT))
        if store.place(store.entry(name))[0] == "missing":
            pytest.skip(f"the files of {name} are neither in $XAI_DATA nor in data/: set XAI_DATA")
        yield store.locate(name)[0]


@contextmanager
def real_archive(name):
    """The one archive of a set, open; see `real`."""
    with real(name) as paths, zipfile.ZipFile(*paths.values()) as archive:
        yield archive


def rows_of(archive):
    """The rows of an archive's index.csv."""
    return list(csv.DictReader(io.StringIO(archive.read("index.csv").decode())))


def zipped(members):
    """A ZIP archive of name → bytes; what is None is left out."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as out:
        for member, content in members.items():
            if content is not None:
                out.writestr(member, content)
    return body.getvalue()


def write_set(root, name, file, body, splits=None):
    """A set of one file and a registry that knows it; `splits`: the text of data/splits/<stem>.csv by stem."""
    write_registry(root, {name: ("build", [], {file: body})})
    (root / "data" / file).write_bytes(body)
    (root / "data/splits").mkdir(exist_ok=True)
    for stem, text in (splits or {}).items():
        (root / f"data/splits/{stem}.csv").write_text(text)
