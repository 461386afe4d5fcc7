"""Realism: against a brute-force loop in float64 and scikit-learn's neighbours; its scale; what is refused."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from xai_utils.metrics import RealismBand, realism

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def data(n=60, classes=3, seed=0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=rng)
    images = torch.rand(n, 1, 5, 4, generator=rng, dtype=torch.float64) + labels[:, None, None, None] * 0.2
    return images.to(dtype), labels


def slow(queries, query_labels, train, labels, leave_one_out=False):
    """Plain Python: every pair of one class, the differences squared and summed."""
    q, t = queries.double().flatten(1).tolist(), train.double().flatten(1).tolist()
    nearest = []
    for i, (x, label) in enumerate(zip(q, query_labels.tolist())):
        distances = [
            math.sqrt(sum((a - b) ** 2 for a, b in zip(x, y)))
            for j, (y, other) in enumerate(zip(t, labels.tolist()))
            if other == label and not (leave_one_out and i == j)
        ]
        nearest.append(min(distances))
    return np.array(nearest)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("memory_mib", [64, 1e-3])  # one block, and one or few queries a block
def test_band_and_distances_equal_the_loop(dtype, memory_mib, device):
    train, labels = data(dtype=dtype)
    queries, query_labels = data(n=25, seed=1, dtype=dtype)
    band = RealismBand(train.to(device), labels.to(device), memory_mib=memory_mib)
    loo = slow(train, labels, train, labels, leave_one_out=True)
    nearest = slow(queries, query_labels, train, labels)
    medians, limits = np.empty(25), np.empty(25)
    for label in range(3):
        own = loo[labels.numpy() == label]
        assert band.leave_one_out[label].cpu().numpy() == pytest.approx(own, rel=1e-5)
        assert band.median[label] == pytest.approx(np.median(own), rel=1e-5)
        assert band.limit[label] == pytest.approx(np.quantile(own, 0.95), rel=1e-5)
        medians[query_labels == label], limits[query_labels == label] = np.median(own), np.quantile(own, 0.95)
    queries, query_labels = queries.to(device), query_labels.to(device)
    assert band.distance(queries, query_labels).cpu().numpy() == pytest.approx(nearest, rel=1e-5)
    assert band.realism(queries, query_labels).cpu().numpy() == pytest.approx(nearest / medians, rel=1e-5)
    odd = band.odd(queries, query_labels).cpu().numpy()
    assert odd.tolist() == (nearest > limits).tolist()
    assert 0 < odd.sum() < 25  # the comparison is not of one kind only


def test_neighbours_equal_scikit_learns():
    train, labels = data(n=300, classes=4, seed=2)
    band = RealismBand(train, labels)
    vectors = train.flatten(1).double().numpy()
    for label in range(4):
        own = vectors[labels == label]
        distances, _ = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(own).kneighbors(own)
        assert band.leave_one_out[label].numpy() == pytest.approx(distances[:, 1], rel=1e-5)


def test_training_images_have_distance_zero_and_five_in_a_hundred_are_beyond_the_limit():
    train, labels = data(n=400, classes=2)
    band = RealismBand(train, labels)
    assert band.distance(train, labels).max() == 0
    assert not band.odd(train, labels).any()
    for label in (0, 1):
        assert (band.leave_one_out[label] > band.limit[label]).float().mean() == pytest.approx(0.05, abs=0.006)
        assert (band.leave_one_out[label] > band.median[label]).float().mean() == pytest.approx(0.5, abs=0.006)


def test_far_from_the_origin_small_distances_survive_float32():
    train, labels = data(n=80)
    base = RealismBand(train, labels)
    step = 2.0**-10  # exact in float32 beside 4096, so that the data are the same but for the offset
    train = (train / step).round() * step
    near, far = RealismBand(train, labels), RealismBand(train + 4096, labels)
    for label in range(3):
        assert far.leave_one_out[label].tolist() == near.leave_one_out[label].tolist()
        assert far.limit[label] == pytest.approx(base.limit[label], rel=0.02)
    probe = train[:1] + step
    assert far.distance(probe + 4096, labels[:1]).item() == pytest.approx(step * math.sqrt(20), rel=1e-6)


def test_realism_has_no_unit_and_no_origin():
    train, labels = data()
    queries, query_labels = data(n=20, seed=3)
    before = RealismBand(train, labels).realism(queries, query_labels)
    band = RealismBand(train * 50 + 3, labels)
    assert band.realism(queries * 50 + 3, query_labels).numpy() == pytest.approx(before.numpy(), rel=1e-4)
    assert band.median[0] == pytest.approx(50 * RealismBand(train, labels).median[0], rel=1e-4)


def test_moving_away_from_the_class_becomes_odd():
    train, labels = data()
    band = RealismBand(train, labels)
    path = torch.stack([train[0] + away for away in torch.linspace(0, 3, 13)])
    ratio = band.realism(path, labels[:1].expand(13))
    assert ratio[0] == 0
    assert (ratio[4:].diff() > 0).all()
    assert band.odd(path, labels[:1].expand(13)).tolist()[-1]
    assert band.distance(train[:1], labels[:1] + 1 - 3 * (labels[:1] == 2)).item() > 0  # another class's band


def test_duplicates_are_neighbours_at_distance_zero():
    images = torch.zeros(6, 1, 2, 2)
    images[3:, 0, 0, 0] = torch.tensor([1.0, 3.0, 6.0])
    labels = torch.zeros(6, dtype=torch.int64)
    band = RealismBand(images, labels)
    assert band.leave_one_out[0].tolist() == [0, 0, 0, 1, 2, 3]  # an image is excluded by index, not by its pixels
    assert band.median[0] == 0.5
    images[3] = 0
    band = RealismBand(images, labels)
    assert band.odd(images + 9, labels).all()
    with pytest.raises(ValueError, match="class 0: most training images are duplicates"):
        band.realism(images, labels)


def test_a_feature_function_replaces_the_pixels(monkeypatch):
    monkeypatch.setattr(realism, "_BATCH", 7)
    train, labels = data()
    queries, query_labels = data(n=20, seed=4)
    sizes = []

    def features(images):
        sizes.append(len(images))
        assert not torch.is_grad_enabled()
        return images.mean(dim=3)  # (b, 1, 5): flattened by the band

    band = RealismBand(train, labels, features)
    nearest = slow(queries.mean(3), query_labels, train.mean(3), labels)
    assert band.distance(queries, query_labels).numpy() == pytest.approx(nearest, rel=1e-4)
    assert max(sizes) == 7
    assert sum(sizes) == 80
    with pytest.raises(ValueError, match="features gave"):
        RealismBand(train, labels, lambda images: images.log() * 0 + torch.nan)
    with pytest.raises(ValueError, match="features gave 9 vectors for 60"):
        RealismBand(train, labels, lambda images: images[:1])


def test_a_block_of_distances_stays_within_its_memory(monkeypatch):
    blocks, addmm = [], torch.addmm

    def recorded(*args, **options):
        blocks.append(addmm(*args, **options))
        return blocks[-1]

    monkeypatch.setattr(torch, "addmm", recorded)
    train, labels = data(n=300, classes=1)
    RealismBand(train, labels, memory_mib=0.02)
    assert sum(len(block) for block in blocks) == 300
    assert max(len(block) for block in blocks) > 1
    assert max(block.nbytes for block in blocks) <= 0.02 * 2**20


def test_half_precision_and_graphs_are_taken():
    train, labels = data()
    band = RealismBand(train, labels)
    queries = train[:8].half().requires_grad_()
    distances = band.distance(queries, labels[:8])
    assert not distances.requires_grad
    assert distances.numpy() == pytest.approx(slow(queries.detach(), labels[:8], train, labels), abs=1e-5)


TRAIN, LABELS = data()
REFUSED = {
    "one image of a class": (lambda: RealismBand(TRAIN[:3], torch.tensor([0, 0, 5])), ValueError, "class 5 has 1"),
    "NaN": (lambda: RealismBand(TRAIN * torch.nan, LABELS), ValueError, "NaN"),
    "integers": (lambda: RealismBand((TRAIN * 255).byte(), LABELS), TypeError, "floating"),
    "flat images": (lambda: RealismBand(TRAIN.flatten(1), LABELS), ValueError, "shape"),
    "none": (lambda: RealismBand(TRAIN[:0], LABELS[:0]), ValueError, "shape"),
    "labels short": (lambda: RealismBand(TRAIN, LABELS[:5]), ValueError, r"expected \(60,\)"),
    "labels float": (lambda: RealismBand(TRAIN, LABELS.float()), TypeError, "float32"),
    "labels list": (lambda: RealismBand(TRAIN, LABELS.tolist()), TypeError, "list"),
    "unknown class": (lambda: RealismBand(TRAIN, LABELS).odd(TRAIN[:1], LABELS[:1] * 0 + 7), ValueError, "label 7"),
    "other size": (lambda: RealismBand(TRAIN, LABELS).odd(TRAIN[..., :2], LABELS), ValueError, r"\(1, 5, 4\)"),
    "infinite": (lambda: RealismBand(TRAIN, LABELS).distance(TRAIN / 0, LABELS), ValueError, "infinite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_clear_sentence(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call()
