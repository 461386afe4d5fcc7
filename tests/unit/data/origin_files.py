"""Miniature origins: archives as the hosts of the real sets pack them, and registries that know them."""

import csv
import hashlib
import io
import tarfile
import zipfile

import numpy as np
import yaml
from data_server import described, write_contents
from PIL import Image

TOP = "road-images-0a1b"


def picture(width, height, seed, kind="JPEG", mode="RGB"):
    """The bytes of a smooth picture."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    return saved(image, kind, **({"quality": 95} if kind == "JPEG" else {}))


def saved(image, kind, **options):
    """The bytes of an image or array."""
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def packed(files, top=TOP, extra=()):
    """A zip file as GitHub makes it: one folder, named in every member. `extra`: further (ZipInfo or name, bytes)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{top}/", b"")
        for name, body in files.items():
            archive.writestr(f"{top}/{name}", body)
        for name, body in extra:
            archive.writestr(name, body)
    return out.getvalue()


def packed_tar(files, top):
    """A tar.gz file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, body in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return out.getvalue()


def as_csv(rows):
    """The text of a table, from dictionaries."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write_origin(root, name, archive, built, origin_files=None, *, coded_again="", tables=None, **fields):
    """A repository that knows one set, how to build it, and what comes out.

    Args:
        root: the repository.
        name: of the set.
        archive: name in data/ of what is built.
        built: name → bytes of the files in it.
        origin_files: those of the origin that are listed, name → bytes; None: no list.
        coded_again: regular expression for the photographs in it that are no byte copies.
        tables: texts of data/tables/<name>.csv by name.
        **fields: of the registry's entry; "origin" holds those of the download.
    """
    data = root / "data"
    for folder in ("origins", "tables", "contents", "splits"):
        (data / folder).mkdir(parents=True, exist_ok=True)
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as out:
        for member, content in built.items():
            out.writestr(member, content)
    write_contents(root, name, body.getvalue(), coded_again)
    for table, text in (tables or {}).items():
        (data / "tables" / f"{table}.csv").write_text(text)
    if origin_files is not None:
        rows = [{"path": n, "bytes": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in origin_files.items()]
        (data / "origins" / f"{name}.csv").write_text(as_csv(rows) if rows else "path,bytes,sha256\n")
    origin = {"urls": ["https://example.org/0a1b.zip"], "bytes": 100_000, "top": TOP} | fields.pop("origin", {})
    texts = {"title": f"set {name}", "licence": "MIT", "source": "s", "citation": "c", "recipe": "build"}
    entry = texts | {"origins": [origin], "files": [described(archive, body.getvalue())]} | fields
    (data / "registry.yaml").write_text(yaml.safe_dump({name: entry}))
    return body.getvalue()
