"""Each set's recipe on a miniature of its origin; what must come out is made here without it."""

import io
import pickle
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from data_server import DataServer, tree
from origin_files import as_csv, packed, packed_tar, picture, saved, write_origin
from PIL import Image
from scipy.io import savemat

from xai_utils.data import load, origins, store
from xai_utils.data.sets.cifar10 import CLASSES as OBJECTS
from xai_utils.data.sets.cifar10 import EACH
from xai_utils.data.sets.stanford_cars import CLASSES as CARS
from xai_utils.data.voc import read_voc


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_ROOT", str(tmp_path))
    monkeypatch.delenv("XAI_DATA", raising=False)
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))
    return tmp_path


def fetch(name, files):
    """The lines that fetching a set says, from a server that holds these files."""
    lines = []
    with DataServer(files) as server:
        origins.fetch(name, mirror=server.url, say=lines.append, accept=True)
    return lines


def built(name, root, archive, expected, origin, *, pack=packed, file="0a1b.zip", **options):
    """Fetch a set whose recipe must make the files `expected`, each byte for byte."""
    write_origin(root, name, archive, expected, origin, **options)
    assert f"{name}: {len(expected)} of {len(expected)} files identical" in fetch(name, {file: pack(origin)})


def opened(body):
    return Image.open(io.BytesIO(body))


def test_chest_xrays_become_grey_at_most_320_wide_and_are_coded_again(root):
    rows, origin, expected = [], {}, {}
    pictures = [
        ("NORMAL", (640, 500), (320, 250), "L"),
        ("PNEUMONIA", (300, 431), (223, 320), "RGB"),
        ("NORMAL", (90, 80), (90, 80), "L"),
    ]
    for number, (kind, size, shrunk, mode) in enumerate(pictures):
        part, stem = ("train", "val", "test")[number], f"person{number}_virus_{number}"
        row = {"file": f"train/{kind}/{stem}.jpg", "class": kind, "patient": f"person{number}", "split": part}
        rows.append(row)
        origin[f"train/{kind}/{stem}.jpeg"] = body = picture(*size, seed=number, mode=mode)
        grey = opened(body).convert("L")
        grey = grey if grey.size == shrunk else grey.resize(shrunk, Image.Resampling.LANCZOS)
        expected[row["file"]] = saved(grey, "JPEG", quality=90, optimize=True)
    table = as_csv(rows)
    (root / "data/splits").mkdir(parents=True)
    lines = [f"{row['class']}/{row['file'].rpartition('/')[2][:-4]},{row['split']}" for row in rows]
    (root / "data/splits/chest_xray.csv").write_text("id,split\n" + "\n".join(lines) + "\n")
    expected["index.csv"] = table.encode()
    archive, options = "chest_xray_pediatric_subset.zip", {"module": "chest_xrays", "tables": {"chest_xray": table}}
    built("chest_xray", root, archive, expected, origin, **options)
    assert load("chest_xrays", size=32).groups.tolist() == ["person0", "person1", "person2"]


def devkit(classes):
    """Both files of the authors' devkit: names, and the class (from 1) of each picture."""
    names = np.empty((1, 3), dtype=object)
    names[0] = ["Other", *CARS[:2]]
    annotations = np.array(
        [[(f"{name}.jpg", np.array([[number]], np.uint8)) for name, number in classes.items()]],
        dtype=[("fname", object), ("class", object)],
    )
    files = {}
    for file, content in (("meta", {"class_names": names}), ("train_annos", {"annotations": annotations})):
        out = io.BytesIO()
        savemat(out, content)
        files[f"devkit/cars_{file}.mat"] = out.getvalue()
    return files


def cars():
    rows, origin, expected = [], {}, {}
    for number, (size, shrunk) in enumerate([((615, 344), (320, 179)), ((78, 50), (78, 50))]):
        name, split = f"{number:05d}", ("train", "test")[number]
        row = {"file": f"images/{split}/{number:02d}/{name}.jpg", "split": split, "class_id_original": number + 2}
        rows.append(row | {"class_name": CARS[number], "orig_file": f"{name}.jpg"})
        origin[f"cars_train/{name}.jpg"] = body = picture(*size, seed=number)
        image = opened(body) if size == shrunk else opened(body).resize(shrunk, Image.Resampling.LANCZOS)
        expected[row["file"]] = saved(image, "JPEG", quality=88, optimize=True)
    table = as_csv(rows)
    options = {"module": "stanford_cars", "terms": "Research only.", "tables": {"stanford_cars": table}}
    return origin, expected | {"index.csv": table.encode()}, options


def test_cars_come_from_two_archives_and_agree_with_the_devkit(root):
    photographs, expected, options = cars()
    marks = devkit({"00000": 2, "00001": 3})
    write_origin(root, "stanford_cars", "stanford_cars_subset.zip", expected, photographs | marks, **options)
    path = root / "data/registry.yaml"
    second = "  - {urls: ['https://example.org/kit.zip'], bytes: 1000, top: kit-2}\n  recipe:"
    path.write_text(path.read_text().replace("  recipe:", second))
    lines = fetch("stanford_cars", {"0a1b.zip": packed(photographs), "kit.zip": packed(marks, top="kit-2")})
    assert "stanford_cars: 3 of 3 files identical" in lines
    assert not (root / "data/.fetch/stanford_cars").exists()
    (root / "data/splits/stanford_cars.csv").write_text("id,split\n00/00000,train\n01/00001,test\n")
    assert load("stanford_cars", size=32).labels.tolist() == [0, 1]


def test_a_car_of_another_class_in_the_devkit_is_named(root):
    photographs, expected, options = cars()
    origin = photographs | devkit({"00000": 2, "00001": 1})
    write_origin(root, "stanford_cars", "stanford_cars_subset.zip", expected, origin, **options)
    with pytest.raises(ValueError, match=r"00001\.jpg is of class 1 in the devkit, not 3"):
        fetch("stanford_cars", {"0a1b.zip": packed(origin)})


def matlab(marks):
    out = io.BytesIO()
    truth = np.array([[(marks, np.zeros_like(marks))]], dtype=[("Segmentation", object), ("Boundaries", object)])
    savemat(out, {"groundTruth": truth})
    return out.getvalue()


def test_crackforest_masks_come_from_matlab_and_what_is_not_explained_goes_apart(root):
    rows = [{"id": "001", "has_mask": 1}, {"id": "002", "has_mask": 1}, {"id": "201", "has_mask": 0}]
    origin = {f"image/{row['id']}.jpg": picture(48, 32, seed=n) for n, row in enumerate(rows)}
    plain, odd = np.ones((2, 32, 48), np.uint8)
    plain[4, 5:20] = odd[9, 1:30] = 2
    odd[0, :7], odd[1, :5] = 3, 4
    origin |= {"groundTruth/001.mat": matlab(plain), "groundTruth/002.mat": matlab(odd)}
    crack, second, other = np.zeros((3, 32, 48), np.uint8)
    crack[4, 5:20] = second[9, 1:30] = 255
    other[0, :7], other[1, :5] = 128, 255
    masks = {"masks/001.png": crack, "masks/002.png": second, "masks_other/002.png": other}
    expected = {name: saved(mask, "PNG", optimize=True) for name, mask in masks.items()}
    expected |= {f"images/{n}.jpg": origin[f"image/{n}.jpg"] for n in ("001", "002")}
    expected |= {"images_unlabelled/201.jpg": origin["image/201.jpg"], "index.csv": as_csv(rows).encode()}
    options = {"module": "crackforest", "tables": {"crackforest": as_csv(rows)}}
    built("crackforest", root, "crackforest_cfd.zip", expected, origin, **options)


def test_roads_are_coded_again_with_masks_of_one_bit_and_boxes_from_the_list(root):
    rows = [{"id": "9_RS_1", "road_segment": "a", "split": "train", "width": 64, "height": 40}]
    rows.append({"id": "9_RS_2", "road_segment": "b", "split": "test", "width": 64, "height": 42})
    boxes = [{"id": "9_RS_1", "class": "crack", "left": 3, "top": 4, "right": 20, "bottom": 9}]
    boxes.append({"id": "9_RS_1", "class": "pothole", "left": 0, "top": 1, "right": 2, "bottom": 5})
    origin, expected = {}, {}
    for number, row in enumerate(rows):
        name, folder = row["id"], f"Dataset/{row['id']}/{row['id']}_"
        origin[f"{folder}RAW.jpg"] = body = picture(row["width"], row["height"], seed=number)
        expected[f"images/{name}.jpg"] = saved(opened(body), "JPEG", quality=77)
        for kind in ("CRACK", "POTHOLE", "LANE"):
            grey = np.random.default_rng(number).integers(0, 256, (row["height"], row["width"]), dtype=np.uint8)
            origin[f"{folder}{kind}.png"] = saved(np.stack([grey] * 3, 2), "PNG")
            bits = Image.fromarray(grey >= 128)
            expected[f"masks/{kind.lower()}/{name}.png"] = saved(bits, "PNG", optimize=True)
        expected[f"annotations/{name}.xml"] = ROAD_XML[number].encode()
    expected["index.csv"] = as_csv(rows).encode()
    tables = {"road_cracks": as_csv(rows), "road_cracks_boxes": as_csv(boxes)}
    built("road_cracks", root, "brazil_road_cracks.zip", expected, origin, module="road_cracks", tables=tables)
    assert read_voc(ROAD_XML[0].encode(), "x") == [("crack", 3, 4, 20, 9), ("pothole", 0, 1, 2, 5)]


HEAD = (
    "<annotation><folder>images</folder><filename>9_RS_{}.jpg</filename><size><width>64</width><height>{}</height>"
    "<depth>3</depth></size><segmented>0</segmented>"
)
ROAD_BOX = (
    "<object><name>{}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox>"
    "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)
ROAD_XML = [
    HEAD.format(1, 40)
    + ROAD_BOX.format("crack", 3, 4, 20, 9)
    + ROAD_BOX.format("pothole", 0, 1, 2, 5)
    + "</annotation>\n",
    HEAD.format(2, 42) + "</annotation>\n",
]


def test_rdd_samples_get_their_boxes_from_text_labels_and_norway_is_made_smaller(root):
    samples = "road_damage_pipeline/02_detection/samples/images"
    plain = "road_damage_pipeline/01_segmentation/assets/pidnet_fastsam_comparison"
    rows = [
        ("train/images/Japan_000001.jpg", 1, 60, 60, 60),
        ("train/images/Norway_000002.jpg", 1, 1280, 717, 3643),
        ("unannotated/images/Czech_000003.jpg", 0, 60, 60, 60),
    ]
    keys = ("file", "annotated", "width", "height", "orig_width")
    rows = [dict(zip(keys, row)) for row in rows]
    origin = {
        f"{samples}/raw/Japan_000001.jpg": picture(60, 60, seed=1),
        f"{samples}/raw/Norway_000002.jpg": picture(3643, 2041, seed=2),
        f"{samples}/labels/Japan_000001.txt": b"3 0.5 0.5 0.5 0.25\r\n0 0.1 0.2 0.2 0.4",
        f"{samples}/labels/Norway_000002.txt": b"1 0.264141 0.800069 0.528282 0.056796\r\n",
        f"{plain}/raw/D002_Czech_000003.jpg": picture(60, 60, seed=3),
    }
    norway = opened(origin[f"{samples}/raw/Norway_000002.jpg"]).resize((1280, 717), Image.Resampling.LANCZOS)
    expected = {
        rows[0]["file"]: origin[f"{samples}/raw/Japan_000001.jpg"],
        rows[1]["file"]: saved(norway, "JPEG", quality=90, optimize=True),
        rows[2]["file"]: origin[f"{plain}/raw/D002_Czech_000003.jpg"],
        "index.csv": as_csv(rows).encode(),
    }
    boxes = {
        "Japan_000001": [("D40", 15, 22, 45, 38), ("D00", 0, 0, 12, 24)],
        "Norway_000002": [("D10", 0, 553, 676, 594)],
    }
    for name, size in (("Japan_000001", (60, 60)), ("Norway_000002", (1280, 717))):
        objects = "".join(RDD_BOX.format(*box) for box in boxes[name])
        xml = RDD_HEAD.format(name, *size) + objects + "</annotation>\n"
        expected[f"train/annotations/xmls/{name}.xml"] = xml.encode()
        assert read_voc(xml.encode(), name) == boxes[name]
    origin[f"{plain}/combined/D002_Czech_000003.jpg"] = b"another picture of that name"
    tables = {"rdd2022_sample": as_csv(rows)}
    built("rdd2022_sample", root, "rdd2022_sample.zip", expected, origin, module="rdc", tables=tables)


RDD_HEAD = (
    "<annotation>\n  <folder>images</folder>\n  <filename>{}.jpg</filename>\n"
    "  <size><width>{}</width><height>{}</height><depth>3</depth></size>\n"
)
RDD_BOX = (
    "  <object>\n    <name>{}</name>\n"
    "    <bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>\n  </object>\n"
)


# --- CIFAR-10


def old_string(data):
    """A byte string as Python 2 pickled it: the form of the authors' files."""
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + len(data).to_bytes(4, "little") + data


def old_batch(pixels, labels):
    """A batch as the authors' Python 2 pickled it: {"labels": [...], "data": array (N, 3072) of uint8}."""
    number = len(pixels).to_bytes(2, "little")
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    shape = b"(K\x01M" + number + b"M\x00\x0c\x86"
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    data = empty + shape + kind + old_string(pixels.tobytes()) + b"tb"
    return b"\x80\x02}(" + old_string(b"labels") + listed + old_string(b"data") + data + b"u."


BATCHES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
CIFAR = {"module": "cifar10", "origin": {"urls": ["https://example.org/cifar-10-python.tar.gz"], "top": "cifar"}}


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def test_of_each_cifar_batch_the_first_images_are_taken_in_the_authors_order(root):
    rng = np.random.default_rng(0)
    pixels = {name: rng.integers(0, 256, (EACH + 3, 3072), dtype=np.uint8) for name in BATCHES}
    labels = {name: rng.integers(0, 10, EACH + 3).tolist() for name in BATCHES}
    origin = {name: old_batch(pixels[name], labels[name]) for name in reversed(BATCHES)} | {"batches.meta": b"unused"}
    parts = {"train": BATCHES[:5], "test": BATCHES[5:]}
    expected = {"class_names.npy": npy(np.array(OBJECTS))}
    for part, names in parts.items():
        colours = [pixels[name][i].reshape(3, 32, 32) for name in names for i in range(EACH)]
        images = [[[plane[y, x] for plane in colour] for y, x in np.ndindex(32, 32)] for colour in colours[:2]]
        expected[f"x_{part}.npy"] = npy(np.array([np.dstack(colour) for colour in colours]))
        assert np.array([np.dstack(colour) for colour in colours[:2]]).reshape(2, 1024, 3).tolist() == images
        expected[f"y_{part}.npy"] = npy(np.array([labels[name][i] for name in names for i in range(EACH)], np.uint8))
    write_origin(root, "cifar10", "cifar10_lossless_subset.npz", expected, **CIFAR)
    lines = fetch("cifar10", {"cifar-10-python.tar.gz": packed_tar(origin, "cifar")})
    assert "cifar10: 5 of 5 files identical" in lines
    ids = [f"{part}/{i:05d},{part}" for part, names in parts.items() for i in range(EACH * len(names))]
    (root / "data/splits/cifar10.csv").write_text("id,split\n" + "\n".join(ids) + "\n")
    found = load("cifar10")
    assert found.provenance["variant"] == "origin"
    assert found.labels[:3].tolist() == labels["data_batch_1"][:3]
    assert (found.images[0, 2] * 255).round().byte().flatten().tolist() == pixels["data_batch_1"][0, 2048:].tolist()


class Harmful:
    def __reduce__(self):
        return print, ("called",)


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        (pickle.dumps([Harmful()], protocol=2), r"it calls (__builtin__|builtins)\.print"),
        (pickle.dumps([1, 2]), "not a batch of CIFAR-10: TypeError"),
        (b"no pickle", "not a batch of CIFAR-10"),
        (old_batch(np.zeros((3, 3072), np.uint8), [1, 2]), r"its data are \(3, 3072\) uint8"),
        (old_batch(np.zeros((3, 3072), np.uint8), [1, 2, 3])[:-40], "not a batch of CIFAR-10"),
    ],
)
def test_a_batch_that_is_none_is_refused_and_nothing_in_it_is_called(root, capsys, batch, text):
    write_origin(root, "cifar10", "cifar10_lossless_subset.npz", {"x": b"x"}, **CIFAR)
    with pytest.raises(ValueError, match=text):
        fetch("cifar10", {"cifar-10-python.tar.gz": packed_tar(dict.fromkeys(BATCHES, batch), "cifar")})
    assert "called" not in capsys.readouterr().out
    assert [name for name in tree(root / "data") if name.endswith(".npz")] == []


@pytest.mark.parametrize(
    ("change", "text"), [("kind", "is a link"), ("name", "leads out"), ("top", "not in the folder 'cifar'")]
)
def test_unsafe_tar_files_are_refused(root, change, text):
    write_origin(root, "cifar10", "cifar10_lossless_subset.npz", {"x": b"x"}, **CIFAR)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        member = tarfile.TarInfo({"kind": "cifar/link", "name": "cifar/../x", "top": "other/x"}[change])
        if change == "kind":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(ValueError, match=text):
        fetch("cifar10", {"cifar-10-python.tar.gz": out.getvalue()})


def test_a_recipe_reads_only_files_that_are_checked(monkeypatch):
    """Every file that a set's recipe reads stands in data/origins, and every one that stands there is read."""
    monkeypatch.delenv("XAI_ROOT")
    asked = {name: [] for name in ("magnetic_tiles", "crackforest", "road_cracks")}
    for name, names in asked.items():
        module = origins.import_module(f"xai_utils.data.sets.{store.entry(name).module}")
        for row in module.read_table(name):
            if name == "magnetic_tiles":
                names += [f"{row['class']}/Imgs/{row['id']}.{end}" for end in ("jpg", "png")]
            elif name == "crackforest":
                names += [f"image/{row['id']}.jpg"] + [f"groundTruth/{row['id']}.mat"] * (row["has_mask"] == "1")
            else:
                folder = f"Dataset/{row['id']}/{row['id']}_"
                names += [folder + end for end in ("RAW.jpg", "CRACK.png", "POTHOLE.png", "LANE.png")]
        assert sorted(names) == sorted(origins.origin_list(name))
