"""Unpacking a zip file: all of it or nothing, and nothing outside of its folder."""

import stat
import zipfile

import pytest
from data_server import tree

from xai_utils.data import origins


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for member, body in members:
            out.writestr(member, body)
    return path


def test_unpack_writes_every_member(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("index.csv", b"id"), ("images/", b""), ("images/a/1.jpg", b"\xff" * 3000)])
    assert origins.unpack(archive, tmp_path / "deep/out", limit=10_000) == tmp_path / "deep/out"
    assert tree(tmp_path / "deep") == {"out/index.csv": b"id", "out/images/a/1.jpg": b"\xff" * 3000}
    with pytest.raises(FileExistsError, match="exists already"):
        origins.unpack(archive, tmp_path / "deep/out", limit=10_000)


def link():
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("/etc/passwd", "is absolute"),
        ("C:/windows/x", "is absolute"),
        ("../x", "leads out"),
        ("a/../../x", "leads out"),
        ("a\\..\\..\\x", "leads out"),
        ("good.txt", "comes twice"),
        (link(), "is a link"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unpack_refuses_unsafe_members_and_leaves_nothing(tmp_path, member, reason):
    archive = make_zip(tmp_path / "a.zip", [("good.txt", b"good"), (member, b"bad")])
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=rf"{reason}.*nothing was unpacked"):
        origins.unpack(archive, tmp_path / "out", limit=10_000)
    assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_unpack_stops_at_the_limit_even_if_the_headers_lie(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("zeros", bytes(100_000))])
    origins.unpack(archive, tmp_path / "enough", limit=100_000)
    with pytest.raises(ValueError, match="more than the limit"):
        origins.unpack(archive, tmp_path / "out", limit=99_999)
    halves = make_zip(tmp_path / "halves.zip", [("a", bytes(600)), ("b", bytes(400))])
    with pytest.raises(ValueError, match="more than the limit"):
        origins.unpack(halves, tmp_path / "out", limit=999)
    raw = archive.read_bytes()
    lying = raw.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lying != raw
    archive.write_bytes(lying)
    with pytest.raises(ValueError, match=r"not an intact zip|more than the limit"):
        origins.unpack(archive, tmp_path / "out", limit=50)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "enough", "halves.zip"]


@pytest.mark.parametrize("spoil", ["cut", "flipped", "encrypted", "text"])
def test_unpack_of_a_damaged_zip_leaves_nothing(tmp_path, spoil):
    archive = make_zip(tmp_path / "a.zip", [("x.txt", bytes(range(256)) * 20)])
    raw = bytearray(archive.read_bytes())
    if spoil == "cut":
        raw = raw[:-30]
    elif spoil == "flipped":
        raw[60] ^= 255
    elif spoil == "encrypted":
        raw[raw.index(b"PK\x01\x02") + 8] |= 1
    else:
        raw = b"no zip"
    archive.write_bytes(raw)
    with pytest.raises(ValueError, match="is encrypted" if spoil == "encrypted" else "not an intact zip"):
        origins.unpack(archive, tmp_path / "out", limit=10_000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
