"""Paper 4's steps: few images, the networks, the maps as a loss (against captum and loops), and what maps tell."""

import itertools
import math
from collections import OrderedDict
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from scipy.stats import pearsonr
from torch import nn
from torch.utils.data import TensorDataset

from xai_utils import training
from xai_utils.data.imageset import ImageSet
from xai_utils.metrics import estimates
from xai_utils.metrics.consistency import ClassMeans
from xai_utils.metrics.statistics import Estimate
from xai_utils.papers import p4_cam_consistency as paper
from xai_utils.seeds import generator

SEED = 0
CLASSES = ("hand", "chest", "skull")
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def image_set(labels, pixels=None, groups=None, split=None):
    n = len(labels)
    pixels = torch.rand(n, 1, 5, 4, generator=generator(3, "pixels")) if pixels is None else pixels
    return ImageSet(
        name="made",
        pixels=pixels,
        labels=torch.tensor(labels, dtype=torch.int64),
        split=np.array(["train"] * n if split is None else split),
        ids=np.array([str(i) for i in range(n)]),
        class_names=CLASSES,
        provenance={"name": "made", "sha256": "", "variant": "own"},
        groups=None if groups is None else np.array(groups),
    )


def rows_of(images):
    return images.ids.astype(int).tolist()


# data and network -----------------------------------------------------------------------------------------------

LABELS = [0, 1, 2] * 12
SPLIT = (["train"] * 3 + ["test"] * 3 + ["train"] * 3 + ["val"] * 3) * 3  # groups of three, one image of each class
GROUPS = np.repeat(list("abcdefghijkl"), 3)


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_subsample_takes_exact_counts_and_leaves_the_rest_to_judge_by(groups):
    images = image_set(LABELS, groups=groups, split=SPLIT)
    few, others = paper.subsample_per_class(images, 1, SEED)
    assert sorted(few.labels.tolist()) == [0, 1, 2]
    assert rows_of(few) == sorted(rows_of(few))
    assert set(few.split) == {"train"}
    test = [i for i in range(36) if SPLIT[i] == "test"]
    taken = set(rows_of(few)) if groups is None else {i for i in range(36) if groups[i] in set(few.groups)}
    spare = [i for i in range(36) if SPLIT[i] == "train" and i not in taken]
    assert rows_of(others) == test + spare
    assert len(spare) == 15 if groups is None else len(spare) == 18 - 3 * len(set(few.groups))
    assert not set(rows_of(few)) & set(rows_of(others))
    assert torch.equal(others.images, images.images[test + spare])
    if groups is not None:
        assert not set(few.groups) & set(others.groups)


def test_subsample_depends_on_the_seed_alone():
    images = image_set(LABELS, split=SPLIT)
    drawn = [rows_of(paper.subsample_per_class(images, 3, seed)[0]) for seed in (0, 0, 1, 2)]
    torch.manual_seed(9)
    np.random.seed(9)
    assert rows_of(paper.subsample_per_class(images, 3, 0)[0]) == drawn[0] == drawn[1]
    assert len({tuple(rows) for rows in drawn}) == 3
    ever = {i for seed in range(40) for i in rows_of(paper.subsample_per_class(images, 1, seed)[0])}
    assert ever == {i for i in range(36) if SPLIT[i] == "train"}


def test_subsample_of_zero_is_the_split_as_it_is_and_too_few_are_refused():
    images = image_set(LABELS, groups=GROUPS, split=SPLIT)
    few, others = paper.subsample_per_class(images, 0, SEED)
    assert rows_of(few) == [i for i in range(36) if SPLIT[i] == "train"]
    assert rows_of(others) == [i for i in range(36) if SPLIT[i] == "test"]
    whole, left = paper.subsample_per_class(images, 6, SEED)
    assert rows_of(whole) == rows_of(few)
    assert rows_of(left) == rows_of(others)
    images = image_set([0, 0, 0, 1, 1, 2, 2, 2, 2], split=["train"] * 5 + ["test"] * 2 + ["train"] * 2)
    with pytest.raises(ValueError, match="per_class is 3, but made has 2 training images of 'chest'"):
        paper.subsample_per_class(images, 3, SEED)
    with pytest.raises(ValueError, match=r"per_class is -1; expected 0 \(all\) or more"):
        paper.subsample_per_class(images, -1, SEED)


def test_composition_by_pairs():
    pixels = torch.rand(7, 2, 8, 8, generator=generator(1))
    labels = [0, 1, 0, 0, 1, 2, 0]  # one alone in its class does not count
    small = np.array([
        [[np.mean(image[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].tolist()) for j in range(4)] for i in range(4)]
        for image in pixels
    ])  # fmt: skip
    alike = []
    for i in range(7):
        others = [j for j in range(7) if j != i and labels[j] == labels[i]]
        if others:
            alike.append(np.mean([pearsonr(small[i].ravel(), small[j].ravel())[0] for j in others]))
    assert paper.composition(image_set(labels, pixels), 4) == pytest.approx(np.mean(alike), abs=1e-5)
    same = pixels[:1].expand(4, 2, 8, 8).contiguous()
    assert paper.composition(image_set([0, 0, 1, 1], same), 4) == pytest.approx(1, abs=1e-5)
    many = torch.rand(200, 1, 32, 32, generator=generator(2))
    assert paper.composition(image_set([0, 1] * 100, many)) == pytest.approx(0, abs=0.02)
    assert paper.composition(image_set(labels, pixels), 8) != paper.composition(image_set(labels, pixels), 4)


@pytest.fixture
def drawn(monkeypatch):
    """Let `torch.rand` return given numbers for the shifts, and for contrast and light; 0.5 changes nothing."""

    def replace(shifts=(0.5, 0.5), contrast=0.5, light=0.5):
        values = [torch.tensor([shifts]), torch.tensor([contrast, light]).view(2, 1, 1, 1, 1)]
        monkeypatch.setattr(torch, "rand", lambda *shape, generator: values.pop(0).expand(shape))
        return (torch.arange(50.0 * 100).view(1, 1, 50, 100) / 5000, torch.tensor([1])), None

    return replace


@pytest.mark.parametrize(("share", "moved"), [(0.0, -0.06), (0.25, -0.03), (0.5, 0.0), (1.0, 0.06)])
def test_augment_shifts_and_repeats_the_border(drawn, share, moved):
    for axis, side in ((0, 50), (1, 100)):
        batch, _ = drawn(shifts=tuple(share if a == axis else 0.5 for a in (0, 1)))
        (before, _), (after, _) = batch, paper.augment(batch, None)
        assert after.shape == before.shape
        step = round(moved * side)
        for i, j in itertools.product((0, 1, 10, 30, 48, 49), (0, 1, 10, 60, 98, 99)):
            source = [i, j]
            source[axis] = min(max(source[axis] + step, 0), side - 1)
            assert after[0, 0, i, j].item() == pytest.approx(before[0, 0, *source].item(), abs=1e-6)


@pytest.mark.parametrize("contrast", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("light", [0.0, 0.5, 1.0])
def test_augment_changes_contrast_about_the_mean_and_light_and_cuts(drawn, contrast, light):
    batch, _ = drawn(contrast=contrast, light=light)
    after = paper.augment(batch, None)[0][0, 0]
    mean = sum(batch[0].flatten().tolist()) / 5000
    for i, j in ((0, 0), (3, 70), (25, 50), (49, 99)):
        value = (batch[0][0, 0, i, j].item() - mean) * math.exp(0.3 * (2 * contrast - 1)) + mean
        value += 0.1 * (2 * light - 1)
        assert after[i, j].item() == pytest.approx(min(max(value, 0), 1), abs=1e-5)


def test_augment_changes_each_image_in_its_own_way_by_the_generator_alone():
    images = torch.rand(24, 1, 50, 50, generator=generator(5)) * 0.4 + 0.3
    before, labels = images.clone(), torch.arange(24)
    after, same = paper.augment((images, labels), generator(SEED))
    state = torch.get_rng_state()
    assert torch.equal(paper.augment((images, labels), generator(SEED))[0], after)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, before)
    assert same is labels
    assert not torch.equal(paper.augment((images, labels), generator(1))[0], after)
    found, moves = set(), list(itertools.product(range(-4, 5), range(-4, 5)))
    for one, other in zip(before[:, 0, 4:-4, 4:-4], after[:, 0]):  # correlation sees neither contrast nor light
        windows = torch.stack([one, *(other[4 - i : 46 - i, 4 - j : 46 - j] for i, j in moves)])
        alike = torch.corrcoef(windows.flatten(1))[0, 1:]
        assert alike.max() > 0.999
        found.add(moves[int(alike.argmax())])
    assert {abs(step) for pair in found for step in pair} == {0, 1, 2, 3}  # up to 0.06 · 50
    assert len(found) > 12


def test_augment_never_flips_and_stays_on_the_device():
    ramp = torch.linspace(0.2, 0.8, 16)
    for images in (ramp.expand(50, 1, 16, 16), ramp[:, None].expand(50, 1, 16, 16)):
        after = paper.augment((images, torch.zeros(50)), generator(SEED))[0]
        assert ((after - after.flip(2, 3))[:, 0, -1, -1] > 0).all()
    meta = paper.augment((torch.rand(3, 1, 8, 8, device="meta"), torch.zeros(3)), generator(SEED))[0]
    assert (meta.device.type, meta.shape) == ("meta", (3, 1, 8, 8))


@pytest.mark.parametrize(("side", "widths"), [(16, [3]), (32, [3, 6]), (64, [3, 6, 12]), (128, [3, 6, 12, 12])])
def test_vgg_has_eight_cells_a_side(side, widths):
    model = paper.network("vgg", 4, 2, side, 3, SEED)
    assert model.training
    model.eval()
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [w for w in widths for _ in (0, 1)] + widths[-1:]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == len(convolutions)
    images = torch.rand(2, 2, side, side, generator=generator(0))
    features = model.get_submodule(paper.LAYERS["vgg"])(images)
    assert features.shape == (2, widths[-1], paper.GRID, paper.GRID)
    assert features.min() == 0  # after the ReLU
    by_hand = features.mean((2, 3)) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(images), by_hand, **CLOSE)
    assert by_hand.shape == (2, 4)


@pytest.mark.parametrize("kind", paper.LAYERS)
def test_network_depends_on_its_seed_alone(kind):
    def weights(seed):
        return torch.cat([p.flatten() for p in paper.network(kind, 3, 1, 64, 2, seed).parameters()])

    one = weights(1)
    torch.manual_seed(33)
    assert torch.equal(weights(1), one)
    assert not torch.equal(weights(2), one)


def test_resnet18_is_watched_at_layer4():
    model = paper.network("resnet18", 3, 2, 64, 2, SEED)
    assert model.training
    images, labels = torch.rand(4, 2, 64, 64, generator=generator(0)), torch.tensor([0, 1, 2, 0])
    watched = paper.Watched(model, paper.LAYERS["resnet18"], images, 3, 4)
    assert watched.maps.shape == (3, 2, 2)
    watched.maps.copy_(torch.rand(3, 2, 2))
    watched.counts.fill_(1)
    found = paper.objective(watched, (images, labels), loss="grad_cam", weight=1.0, epochs=1)
    assert 0 < found["cam"].item() < 4
    found["cam"].backward()
    assert model.conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("kind", "side"), [("alexnet", 64), ("vgg", 15), ("resnet18", 63)])
def test_network_refuses_other_kinds_and_small_images(kind, side):
    text = (
        f"got {kind!r} for images of {side} pixels; expected vgg or resnet18, of at least 16 and 64 pixels: a map of a"
    )
    with pytest.raises(ValueError, match=text):
        paper.network(kind, 2, 1, side, 4, SEED)


# the watched network --------------------------------------------------------------------------------------------


def small(dtype=torch.float32, n_classes=3, norm=False, smooth=False, tail=False, seed=0):
    """Convolutions ("features") on a grid of 5 × 4, perhaps more behind them, GAP and a linear layer."""
    torch.manual_seed(seed)
    act = nn.Softplus if smooth else nn.ReLU
    first = [nn.Conv2d(1, 3, 3, padding=1), *([nn.BatchNorm2d(3)] if norm else []), act()]
    parts = OrderedDict(features=nn.Sequential(*first, nn.Conv2d(3, 4, 3, padding=1), act()))
    if tail:
        parts["tail"] = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), act())
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "head": nn.Linear(4, n_classes)}
    model = nn.Sequential(parts).to(dtype)
    with torch.no_grad():
        model.head.weight.copy_(torch.randn(n_classes, 4, generator=generator(seed, "head")) * 2 + 0.5)
    return model


def data(n, seed=0, dtype=torch.float32, n_classes=3):
    random = generator(seed, "data")
    images = torch.rand(n, 1, 5, 4, generator=random).to(dtype)
    return images, torch.randint(n_classes, (n,), generator=random)


def watch(model, epoch_images, **options):
    example = torch.zeros(1, 1, 5, 4, dtype=next(model.parameters()).dtype)
    return paper.Watched(model, "features", example, 3, epoch_images, **options)


def with_means(model, counts=(4, 0, 2), seed=4, **options):
    watched = watch(model, 10**6, **options)
    watched.maps.copy_(torch.rand(3, 5, 4, generator=generator(seed, "means")) * 0.4)
    watched.maps[[count == 0 for count in counts]] = math.nan
    watched.counts.copy_(torch.tensor(counts))
    return watched


def slow_map(features, weights):
    """Grad-CAM of one image: `weights` of the class in the linear layer behind GAP are the gradients × (h w)."""
    channels, h, w = features.shape
    features, weights = features.tolist(), weights.tolist()
    cells = itertools.product(range(h), range(w))
    values = [max(0.0, sum(weights[k] / (h * w) * features[k][i][j] for k in range(channels))) for i, j in cells]
    return np.array(values).reshape(h, w)


def slow_plus_plus(features, weights):
    """Grad-CAM++ of exp(logit), up to a factor of the whole map: α = g² / (2 g² + Σ A g³), w = Σ α ReLU(g)."""
    channels, h, w = features.shape
    totals = []
    for k in range(channels):
        g = weights[k].item() / (h * w)
        alpha = g**2 / (2 * g**2 + sum(features[k].flatten().tolist()) * g**3)
        totals.append(h * w * alpha * max(g, 0))
    return np.maximum(sum(totals[k] * features[k].numpy() for k in range(channels)), 0)


def slow_maps(model, images, labels, one=slow_map):
    with torch.no_grad():
        features = model.features(images)
    return [one(a, model.head.weight.detach()[c]) for a, c in zip(features, labels)]


def unit(saliency):
    size = math.sqrt(sum(v * v for v in np.ravel(saliency).tolist()))
    return saliency / size if size else saliency


def mean_of(maps, labels, correct, label):
    own = [unit(m) for m, c, right in zip(maps, labels, correct) if c == label and right]
    return sum(own) / len(own) if own else None


def as_numbers(state):
    return {name: value.clone() for name, value in state.items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


def test_watched_calls_its_network_and_starts_without_means():
    model = small(norm=True)
    images, _ = data(4)
    watched = watch(model, 10)
    assert watched.training
    assert model.training
    assert torch.equal(watched.eval()(images), model(images))
    assert watched.maps.shape == (3, 5, 4)
    assert watched.maps.isnan().all()
    assert (watched.counts.tolist(), watched.epoch, watched.means.empty) == ([0] * 3, 0, [0, 1, 2])
    assert watched.means.normalise == "norm"
    assert watch(small(), 10, normalise="sum").means.normalise == "sum"
    assert model.features[1].num_batches_tracked == 0  # the look at the maps' size moved nothing


MAPS = torch.rand(20, 5, 4, generator=generator(8)) * 10 ** torch.linspace(-1, 1, 20)[:, None, None]
TRUE = [0, 1, 1, 2, 0, 1, 2, 0, 1, 0, 0, 1, 2, 2, 0, 1, 1, 0, 2, 0]
RIGHT = [i not in (1, 6, 7, 10, 12, 13, 18) for i in range(20)]  # none of class 2 in the second ten
BATCHES = [range(4), range(4, 8), range(8, 10), range(10, 14), range(14, 18), range(18, 20)]


def update(watched, rows):
    rows = list(rows)
    watched.update_means(MAPS[rows], torch.tensor(TRUE)[rows], torch.tensor(RIGHT)[rows])


def test_an_epoch_is_compared_with_the_means_of_the_epoch_before():
    watched = watch(small(), 10)
    expected, counts = [None] * 3, [0] * 3
    for number, rows in enumerate(BATCHES):
        assert watched.epoch == number // 3
        update(watched, rows)
        if number in (2, 5):  # an epoch ends
            ten = range(10) if number == 2 else range(10, 20)
            for label in range(3):
                own = [i for i in ten if TRUE[i] == label and RIGHT[i]]
                if own:
                    expected[label], counts[label] = sum(unit(MAPS[i].numpy()) for i in own) / len(own), len(own)
            assert watched.kept.item() == (0 if number == 2 else 1)
        assert watched.counts.tolist() == counts
        for label in range(3):
            if expected[label] is None:
                assert watched.maps[label].isnan().all()
            else:
                np.testing.assert_allclose(watched.maps[label].numpy(), expected[label], **CLOSE)
    assert counts == [3, 3, 1]  # class 2 kept its mean of one image
    assert watched.epoch == 2
    assert not watched.sums.any()
    assert not watched.summed.any()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_running_means_take_a_share_of_every_batch(momentum):
    watched = watch(small(), 10, momentum=momentum)
    expected, counts = [None] * 3, [0] * 3
    for number, rows in enumerate(BATCHES):
        update(watched, rows)
        for label in range(3):
            own = [i for i in rows if TRUE[i] == label and RIGHT[i]]
            if own:
                new = sum(unit(MAPS[i].numpy()) for i in own) / len(own)
                last, counts[label] = expected[label], len(own)
                expected[label] = new if last is None else momentum * last + (1 - momentum) * new
            if expected[label] is not None:
                np.testing.assert_allclose(watched.maps[label].numpy(), expected[label], **CLOSE)
            else:
                assert watched.maps[label].isnan().all()
        assert watched.counts.tolist() == counts
        assert watched.kept.item() == (number == 5)


@pytest.mark.parametrize("how", ["none", "sum"])
def test_means_are_of_maps_normalised_as_asked(how):
    watched = watch(small(), 10, normalise=how)
    for rows in BATCHES[:3]:
        update(watched, rows)
    own = [i for i in range(10) if TRUE[i] == 1 and RIGHT[i]]
    size = {i: MAPS[i].sum().item() if how == "sum" else 1 for i in own}
    np.testing.assert_allclose(watched.maps[1].numpy(), sum(MAPS[i].numpy() / size[i] for i in own) / 3, **CLOSE)


def test_an_epoch_of_another_length_than_the_data_is_refused():
    watched = watch(small(), 7)
    update(watched, BATCHES[0])
    with pytest.raises(ValueError, match="epoch_images is 7, but a batch of 4 came when 3 were left"):
        update(watched, BATCHES[1])


def test_the_state_of_a_watched_network_goes_into_a_new_one():
    one, other = watch(small(norm=True), 10), watch(small(norm=True, seed=1), 10)
    for rows in BATCHES[:5]:
        update(one, rows)
    other.load_state_dict(as_numbers(one.state_dict()))
    assert {"maps", "counts", "sums", "summed", "images", "kept"} <= set(one.state_dict())
    update(one, BATCHES[5])
    update(other, BATCHES[5])
    assert_same(one.state_dict(), other.state_dict())
    assert other.epoch == 2


def steps(watched, images, labels, batches, **options):
    """Train by plain gradient descent; yield what the objective said, and the slow maps and hits before the step."""
    options = {"loss": "grad_cam", "weight": 0.5, "epochs": 2} | options
    optimizer = torch.optim.SGD(watched.parameters(), lr=0.2)
    for rows in batches:
        x, y = images[list(rows)], labels[list(rows)]
        maps = slow_maps(watched.network, x, y)
        with torch.no_grad():
            hits = (watched(x).argmax(1) == y).tolist()
        found = paper.objective(watched, (x, y), **options)
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        yield rows, found, maps, hits


def test_two_epochs_of_training_by_loops():
    images, _ = data(20)
    watched = watch(small(), 10)
    with torch.no_grad():
        guess = watched(images).argmax(1)
    labels = torch.where(torch.arange(20) % 5 == 0, (guess + 1) % 3, guess)  # mostly right, from the start
    maps, hits, means, used = [], [], [None] * 3, 0
    for rows, found, batch_maps, batch_hits in steps(watched, images, labels, BATCHES):
        maps, hits = maps + batch_maps, hits + batch_hits
        away = [
            ((unit(m) - means[c]) ** 2).sum()
            for m, c in zip(batch_maps, labels[list(rows)].tolist())
            if means[c] is not None
        ]
        assert found["cam"].item() == pytest.approx(np.mean(away) if away else 0, abs=1e-5)
        assert found["accuracy"].item() == pytest.approx(np.mean(batch_hits))
        used += len(away)
        if len(maps) % 10 == 0:
            new = [mean_of(maps[-10:], labels.tolist()[len(maps) - 10 :], hits[-10:], c) for c in range(3)]
            means = [old if fresh is None else fresh for old, fresh in zip(means, new)]
            for label in range(3):
                if means[label] is not None:
                    np.testing.assert_allclose(watched.maps[label].numpy(), means[label], **CLOSE)
    assert used >= 6
    assert watched.counts.sum() > 0


def test_kept_is_told_of_the_epoch_before():
    images, _ = data(30)
    watched = watch(small(), 10)
    with torch.no_grad():
        guess = watched(images).argmax(1)
    batches = [range(k, k + 5) for k in range(0, 30, 5)]
    labels = torch.where(torch.arange(30) < 10, (guess + 1) % 3, guess)  # all wrong in the first epoch
    told = []
    for rows in batches:
        batch = images[list(rows)], labels[list(rows)]
        told.append(paper.objective(watched, batch, loss="grad_cam", weight=1.0, epochs=3)["kept"].item())
    right = [len(set(labels[k : k + 10].tolist())) for k in (10, 20)]
    assert told == [0, 0, 3, 3, 3 - right[0], 3 - right[0]]
    assert watched.kept.item() == 3 - right[1]


@pytest.mark.parametrize("loss", paper.LOSSES)
def test_evaluation_updates_nothing(loss):
    watched = with_means(small(norm=True)).eval()
    before = as_numbers(watched.state_dict())
    with torch.no_grad():
        found = paper.objective(watched, data(6), loss=loss, weight=1.0, epochs=3)
    assert_same(before, watched.state_dict())
    assert not found["loss"].requires_grad
    again = paper.objective(watched, data(6), loss=loss, weight=1.0, epochs=3)  # with gradients
    assert_same(before, watched.state_dict())
    assert again["loss"].item() == pytest.approx(found["loss"].item(), rel=1e-6)
    assert again["loss"].requires_grad


def test_no_gradient_reaches_the_means_or_an_earlier_batch():
    for momentum in (None, 0.5):
        watched = watch(small(), 6, momentum=momentum)
        for seed in range(4):
            found = paper.objective(watched, data(6, seed), loss="grad_cam", weight=1.0, epochs=4)
            found["loss"].backward()  # the graph of the batch before is gone
            for name, value in watched.named_buffers():
                assert not value.requires_grad, name
        assert watched.counts.sum() > 0
        assert found["cam"].item() > 0


def stopped(model, after):
    """Stop the training in its batch number `after` + 1. Not in the objective: a checkpoint knows its code."""
    calls = []

    def forward(network, _inputs):
        calls.append(network.training)
        if sum(calls) > after:
            raise KeyboardInterrupt

    model.network.register_forward_pre_hook(forward)


def fitted(momentum, checkpoint=None, loss="hybrid", stop_after=math.inf):
    model = watch(small(norm=True), 10, momentum=momentum)
    stopped(model, stop_after)
    history = training.fit(
        model,
        partial(paper.objective, loss=loss, weight=2.0, epochs=4),
        TensorDataset(*data(10)),
        epochs=4,
        optimizer=partial(torch.optim.AdamW, lr=0.02),
        seed=SEED,
        validation=TensorDataset(*data(5, seed=1)),
        schedule=partial(training.one_cycle, peak=0.05),
        batch_size=4,
        checkpoint=checkpoint,
        augment=paper.augment,
    )
    return model, history


@pytest.mark.parametrize(("momentum", "loss"), [(None, "hybrid"), (0.9, "grad_cam"), (None, "curriculum")])
def test_a_killed_training_ends_like_an_uninterrupted_one_means_included(tmp_path, momentum, loss):
    whole, history = fitted(momentum, loss=loss)
    with pytest.raises(KeyboardInterrupt):
        fitted(momentum, tmp_path / "c.pt", loss, stop_after=2 * 3 + 1)  # within the third epoch
    resumed, again = fitted(momentum, tmp_path / "c.pt", loss)
    assert again.attrs["resumed_from"] == 2
    assert_same(whole.state_dict(), resumed.state_dict())
    assert whole.counts.sum() > 0
    assert whole.epoch == 4
    columns = ["train_loss", "train_cam", "train_kept", "val_loss", "val_cam"]
    assert again[columns].equals(history[columns])
    assert history["val_cam"].iloc[-1] > 0


# the objective --------------------------------------------------------------------------------------------------


def slow_cross_entropy(logits, labels):
    rows = [math.log(sum(map(math.exp, row))) - row[c] for row, c in zip(logits.tolist(), labels.tolist())]
    return sum(rows) / len(rows)


def slow_spread(saliency):
    h, w = saliency.shape
    share = saliency / saliency.sum() if saliency.sum() else np.full((h, w), 1 / (h * w))
    cells = [((i + 0.5) / h, (j + 0.5) / w, share[i, j]) for i in range(h) for j in range(w)]
    row, column = sum(y * s for y, _, s in cells), sum(x * s for _, x, s in cells)
    return sum(s * ((y - row) ** 2 + (x - column) ** 2) for y, x, s in cells)


def slow_area(saliency):
    values = np.ravel(saliency).tolist()
    return sum(values) ** 2 / (len(values) * sum(v * v for v in values)) if any(values) else 1.0


def slow_term(loss, watched, images, labels):
    """L_cam by its formula."""
    maps = slow_maps(watched.network, images, labels, slow_plus_plus if loss == "grad_cam_pp" else slow_map)
    known = [(m, c) for m, c in zip(maps, labels.tolist()) if watched.counts[c] > 0]
    distance = np.mean([((unit(m) - watched.maps[c].numpy()) ** 2).sum() for m, c in known]) if known else 0.0
    spread = np.mean([slow_spread(m) for m in maps])
    return {
        "grad_cam": distance,
        "grad_cam_pp": distance,
        "small_region": np.mean([slow_area(m) for m in maps]),
        "less_spread": spread,
        "more_spread": 0.5 - spread,
        "hybrid": (distance + spread) / 2,
    }[loss]


@pytest.mark.parametrize(("loss", "weight"), [("none", 3.0), *((loss, 0) for loss in paper.LOSSES)])
def test_without_a_weight_it_is_cross_entropy_alone(loss, weight):
    watched = with_means(small())
    before, (images, labels) = as_numbers(watched.state_dict()), data(6)
    found = paper.objective(watched, (images, labels), loss=loss, weight=weight, epochs=3)
    assert set(found) == {"loss", "cross_entropy", "accuracy"}
    logits = watched(images)
    assert found["loss"].item() == found["cross_entropy"].item()
    assert found["loss"].item() == pytest.approx(slow_cross_entropy(logits, labels), rel=1e-5)
    hits = [max(range(3), key=row.__getitem__) == c for row, c in zip(logits.tolist(), labels.tolist())]
    assert found["accuracy"].item() == pytest.approx(sum(hits) / 6)
    assert_same(before, watched.state_dict())


@pytest.mark.parametrize("loss", ["grad_cam", "grad_cam_pp", "small_region", "less_spread", "more_spread", "hybrid"])
def test_the_loss_is_cross_entropy_and_lambda_times_its_formula(loss):
    watched, (images, labels) = with_means(small()), data(8)
    term = slow_term(loss, watched, images, labels)
    cross_entropy = slow_cross_entropy(watched(images), labels)
    means = watched.maps.clone()
    for weight in (0.01, 1, 10.0):
        found = paper.objective(watched, (images, labels), loss=loss, weight=weight, epochs=3)
        assert set(found) == {"loss", "cross_entropy", "accuracy", "cam", "kept"}
        assert found["cam"].item() == pytest.approx(term, rel=1e-4)
        assert found["cross_entropy"].item() == pytest.approx(cross_entropy, rel=1e-5)
        assert found["loss"].item() == pytest.approx(cross_entropy + weight * term, rel=1e-4)
    assert watched.images.item() == 24
    torch.testing.assert_close(watched.maps, means, rtol=0, atol=0, equal_nan=True)  # the epoch goes on


@pytest.mark.parametrize(("epochs", "stages"), [(3, "012"), (6, "001122"), (7, "0001122"), (1, "0"), (2, "01")])
def test_a_curriculum_looks_everywhere_then_where_the_others_do_then_closer(epochs, stages):
    watched, batch = with_means(small()), data(6)
    watched.epoch_images = 6
    names = ["more_spread", "grad_cam", "small_region"]
    assert tuple(names) == paper.STAGES
    for epoch, stage in enumerate(stages):
        assert watched.epoch == epoch
        term = slow_term(names[int(stage)], watched, *batch)
        found = paper.objective(watched, batch, loss="curriculum", weight=1.0, epochs=epochs)
        assert found["cam"].item() == pytest.approx(term, rel=1e-4)
        watched.eval()  # validation comes when the epoch's images have been seen, and belongs to it
        found = paper.objective(watched, batch, loss="curriculum", weight=1.0, epochs=epochs)
        assert found["cam"].item() == pytest.approx(slow_term(names[int(stage)], watched, *batch), rel=1e-4)
        watched.train()


def test_one_forward_pass_serves_both_terms():
    watched, calls = with_means(small(norm=True)), []
    watched.network.register_forward_hook(lambda *_: calls.append(1))
    for loss in paper.LOSSES:
        calls.clear()
        paper.objective(watched, data(6), loss=loss, weight=1.0, epochs=3)
        assert len(calls) == 1
    assert watched.network.features[1].num_batches_tracked == len(paper.LOSSES)


@pytest.mark.parametrize("tail", [False, True])
def test_gradients_of_every_parameter_are_those_of_captum_s_maps(tail):
    watched = with_means(small(torch.float64, tail=tail))
    images, labels = data(8, dtype=torch.float64)
    layer = LayerGradCam(watched.network, watched.network.features)
    maps = layer.attribute(images, labels, relu_attributions=True, grad_kwargs={"create_graph": True})[:, 0]
    known = watched.counts[labels] > 0
    squares = maps.square().sum((1, 2), keepdim=True)
    units = maps / (squares + (squares == 0)).sqrt()  # a map of zeros stays one
    away = (units[known] - watched.maps.double()[labels[known]]).square().sum((1, 2)).mean()
    parameters = list(watched.parameters())
    expected = torch.autograd.grad(away, parameters, allow_unused=True)
    found = paper.objective(watched, (images, labels), loss="grad_cam", weight=1.0, epochs=1)
    assert found["cam"].item() == pytest.approx(away.item(), rel=1e-9)
    got = torch.autograd.grad(found["cam"], parameters, allow_unused=True)
    for (name, _), one, other in zip(watched.named_parameters(), got, expected, strict=True):
        one, other = (torch.zeros(1) if g is None else g for g in (one, other))
        assert (one - other).norm() <= 1e-6 * other.norm(), name
        still = name in ("network.head.bias", "network.tail.0.bias")  # shift the score only: piecewise linear behind
        assert other.norm() > 1e-4 or still, name


class Term(nn.Module):
    """L_cam as a function of the parameters."""

    def __init__(self, watched, loss):
        super().__init__()
        self.watched, self.loss = watched, loss

    def forward(self, batch):
        return paper.objective(self.watched, batch, loss=self.loss, weight=1.0, epochs=1)["cam"]


@pytest.mark.parametrize("loss", ["grad_cam", "grad_cam_pp", "small_region", "less_spread", "hybrid"])
def test_gradients_by_finite_differences(loss):
    term = Term(with_means(small(torch.float64, smooth=True, tail=True)), loss).eval()
    names, values = zip(*((name, p.detach().clone().requires_grad_()) for name, p in term.named_parameters()))
    batch = data(3, dtype=torch.float64)

    def value(*parameters):
        return torch.func.functional_call(term, dict(zip(names, parameters)), (batch,))

    assert torch.autograd.gradcheck(value, values, fast_mode=True)


@pytest.mark.parametrize(
    ("loss", "weight"), [("grad_cam", -0.1), ("grad_cam", math.nan), ("none", -1), ("minmax", 1), ("", 0)]
)
def test_unknown_losses_and_negative_weights_are_refused(loss, weight):
    text = rf"got loss {loss!r}, λ = {weight!r}; expected one of none, grad_cam, .*, curriculum, and λ of at least 0"
    with pytest.raises(ValueError, match=text):
        paper.objective(with_means(small()), data(3), loss=loss, weight=weight, epochs=1)


@pytest.mark.parametrize("loss", ["grad_cam", "grad_cam_pp", "small_region", "less_spread", "more_spread", "hybrid"])
def test_maps_of_zero_teach_nothing_and_flat_maps_are_finite(loss):
    watched, (images, labels) = with_means(small()), data(6)
    with torch.no_grad():
        watched.network.head.weight.copy_(-watched.network.head.weight.abs())
    assert not np.any(slow_maps(watched.network, images, labels))
    found = paper.objective(watched, (images, labels), loss=loss, weight=1.0, epochs=1)
    assert found["cam"].item() == pytest.approx(slow_term(loss, watched, images, labels), rel=1e-5)
    gradients = torch.autograd.grad(found["cam"], list(watched.parameters()), allow_unused=True)
    assert all(g is None or not g.any() for g in gradients)

    watched = with_means(small())
    for convolution in (watched.network.features[0], watched.network.features[2]):
        nn.init.zeros_(convolution.weight)
        nn.init.constant_(convolution.bias, 0.3)
    found = paper.objective(watched, (images, labels), loss=loss, weight=1.0, epochs=1)
    (flat,) = {m.max() - m.min() for m in slow_maps(watched.network, images, labels)}
    assert flat < 1e-12
    assert found["cam"].item() == pytest.approx(slow_term(loss, watched, images, labels), rel=1e-4)
    found["loss"].backward()
    assert all(p.grad.isfinite().all() for p in watched.parameters())


class Beside(nn.Module):
    """A layer that is run, and whose output goes nowhere."""

    def __init__(self):
        super().__init__()
        self.features, self.head = nn.Conv2d(1, 2, 3), nn.Linear(20, 3)

    def forward(self, images):
        self.features(images)
        return self.head(images.flatten(1))


def test_a_layer_without_influence_is_named():
    with pytest.raises(ValueError, match="the target's score does not depend on layer 'features'"):
        watch(Beside(), 10)
    watched = with_means(small())
    watched.network = Beside()
    with pytest.raises(ValueError, match="the target's score does not depend on layer 'features'"):
        paper.objective(watched, data(3), loss="grad_cam", weight=1.0, epochs=1)
    with pytest.raises(ValueError, match="layer: the model has no module 'feature'; close candidates: features"):
        paper.Watched(small(), "feature", torch.zeros(1, 1, 5, 4), 3, 10)


@pytest.mark.parametrize("loss", ["grad_cam", "grad_cam_pp", "small_region", "hybrid"])
def test_mixed_precision_is_close_to_float32(loss):
    results = []
    for enabled in (False, True):
        watched = with_means(small())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            found = paper.objective(watched, data(8), loss=loss, weight=1.0, epochs=1)
        found["loss"].backward()
        assert watched.sums.dtype == watched.maps.dtype == found["loss"].dtype == torch.float32
        gradient = torch.cat([p.grad.flatten() for p in watched.parameters()])
        assert gradient.isfinite().all()
        results.append((found, gradient))
    (exact, slope), (rough, other) = results
    assert rough["cam"].item() == pytest.approx(exact["cam"].item(), rel=0.02)
    assert rough["cam"].item() != exact["cam"].item()
    assert rough["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.02)
    assert torch.cosine_similarity(slope, other, dim=0) > 0.99


def test_a_batch_of_one_class_only():
    watched, (images, _) = with_means(small(), counts=(4, 0, 2)), data(5)
    for label, known in ((0, True), (1, False)):
        labels = torch.full((5,), label)
        term = slow_term("grad_cam", watched, images, labels)
        found = paper.objective(watched, (images, labels), loss="grad_cam", weight=1.0, epochs=1)
        assert found["cam"].item() == pytest.approx(term, rel=1e-4)
        assert (found["cam"].item() > 0) == known
        found["loss"].backward()
    assert watched.summed[2] == 0


def test_the_first_epoch_has_no_means_and_trains_by_cross_entropy():
    watched, (images, labels) = watch(small(), 12), data(6)
    found = paper.objective(watched, (images, labels), loss="grad_cam", weight=10.0, epochs=2)
    assert found["cam"].item() == 0
    assert found["loss"].item() == found["cross_entropy"].item()
    found["loss"].backward()
    plain = small()
    nn.functional.cross_entropy(plain(images), labels).backward()
    for one, other in zip(watched.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, **CLOSE)


def test_epochs_for_steps():
    assert paper.epochs_for(100, 320, 32) == 10
    assert paper.epochs_for(100, 321, 32) == 9  # eleven batches
    assert paper.epochs_for(96, 321, 32) == 9
    assert paper.epochs_for(5, 10_000, 32) == 2  # in a single epoch the consistency loss would never act
    assert paper.epochs_for(100, 3, 32) == 100


# what maps look like --------------------------------------------------------------------------------------------


def test_judge_by_loops_in_batches_and_the_model_left_as_found():
    model = small(norm=True, seed=2)
    model.features[1].running_mean.normal_(0, 0.1)
    model.head.weight.grad = torch.ones(3, 4)
    model.head.bias.requires_grad_(False)
    labels = [i % 3 for i in range(70)]
    images = image_set(labels, torch.rand(70, 1, 5, 4, generator=generator(6)))
    before, sizes = as_numbers(model.state_dict()), []
    handle = model.register_forward_hook(lambda _m, inputs, _o: sizes.append(len(inputs[0])))
    found = paper.judge(model, "features", images)
    handle.remove()
    assert sizes == [70, 64, 6, int((~found.right).sum())]  # again for the predicted class only where it is another
    assert_same(before, model.state_dict())
    assert all(module.training for module in model.modules())
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["head.bias"]
    assert (model.head.weight.grad == 1).all()
    assert all(p.grad is None for name, p in model.named_parameters() if name != "head.weight")

    model.eval()
    torch.testing.assert_close(found.logits, model(images.images).detach(), **CLOSE)
    predicted = [max(range(3), key=row.__getitem__) for row in found.logits.tolist()]
    assert found.predicted.tolist() == predicted
    assert found.labels.tolist() == labels
    assert found.right.tolist() == [a == b for a, b in zip(predicted, labels)]
    assert 5 < found.right.sum() < 65
    for classes, maps in ((found.labels, found.true_maps), (found.predicted, found.maps)):
        expected = slow_maps(model, images.images, classes)
        np.testing.assert_allclose(maps.numpy(), np.stack(expected), **CLOSE)
    assert torch.equal(found.true_maps[found.right], found.maps[found.right])
    for row, uncertainty in zip(found.logits.tolist(), found.uncertainty):
        assert uncertainty == pytest.approx(1 - max(map(math.exp, row)) / sum(map(math.exp, row)), abs=1e-6)


def test_uncertainty_orders_confident_predictions():
    logits = torch.tensor([[20.0, 0], [25, 0], [0, 30]])
    found = paper.Judged(logits, *[None] * 5).uncertainty
    np.testing.assert_allclose(found, [math.exp(-20), math.exp(-25), math.exp(-30)], rtol=0.01)


def looked(n=12, seed=0):
    """Maps of right and wrong predictions, of classes 0 to 2."""
    random = generator(seed, "looked")
    labels = torch.arange(n) % 3
    predicted = torch.where(torch.arange(n) % 4 == 3, (labels + 1) % 3, labels)
    right = (predicted == labels).numpy()
    true = torch.rand(n, 5, 4, generator=random) ** 3 * 10.0 ** torch.linspace(-1, 1, n)[:, None, None]
    given = torch.where(torch.from_numpy(right)[:, None, None], true, torch.rand(n, 5, 4, generator=random))
    return paper.Judged(torch.zeros(n, 3), right, labels, predicted, true, given)


def test_means_are_of_the_right_predictions():
    found = looked()
    means = paper.means_of(found, 4)
    for label in range(3):
        expected = mean_of(found.true_maps.numpy(), found.labels.tolist(), found.right, label)
        np.testing.assert_allclose(means.maps[label].numpy(), expected, **CLOSE)
    assert means.counts.tolist() == [3, 3, 3, 0]
    assert means.empty == [3]
    raw = paper.means_of(found, 3, "none").maps[0]
    torch.testing.assert_close(raw, found.true_maps[[0, 6, 9]].mean(0), **CLOSE)


def test_distances_to_the_true_and_to_the_predicted_mean():
    found, means = looked(), paper.means_of(looked(seed=1), 3)
    got = paper.distances(found, means)
    for name, maps, labels in (("true", found.true_maps, found.labels), ("predicted", found.maps, found.predicted)):
        expected = [((unit(m) - means.maps[c].numpy()) ** 2).sum() for m, c in zip(maps.numpy(), labels.tolist())]
        np.testing.assert_allclose(got[name], expected, rtol=1e-5)
        assert got[name].dtype == np.float64
    same = got["true"] == got["predicted"]
    assert same.tolist() == found.right.tolist()


def test_a_class_without_a_mean_gets_the_largest_distance():
    found, means = looked(), paper.means_of(looked(seed=1), 3)
    found.maps[7] = means.maps[2] == means.maps[2].min()  # taken for class 2, and far from it
    full = paper.distances(found, means)
    gone = means._replace(maps=means.maps.clone(), counts=torch.tensor([3, 0, 3]))
    gone.maps[1] = math.nan
    got = paper.distances(found, gone)
    away = {"true": found.labels.numpy() != 1, "predicted": found.predicted.numpy() != 1}
    largest = max(full[name][away[name]].max() for name in full)
    for name in full:
        np.testing.assert_array_equal(got[name], np.where(away[name], full[name], largest))
    assert full["true"][away["true"]].max() < largest  # of both kinds together
    nothing = ClassMeans(torch.full((3, 5, 4), math.nan), torch.zeros(3, dtype=torch.int64), "norm")
    assert {v for values in paper.distances(found, nothing).values() for v in values} == {0}


def centroid(saliency):
    h, w = saliency.shape
    share = saliency / saliency.sum()
    rows, columns = (np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w
    return np.array([(share.sum(1) * rows).sum(), (share.sum(0) * columns).sum()])


def test_scatter_of_right_and_wrong_predictions_by_loops():
    found, means = looked(16), paper.means_of(looked(seed=1), 3)
    rows = paper.scatter(found, means)
    away = paper.distances(found, means)["true"]
    for name, chosen in (("correct", found.right), ("wrong", ~found.right)):
        numbers = np.flatnonzero(chosen).tolist()
        labels, maps = found.labels.tolist(), found.true_maps.double().numpy()
        correlation, scattered = [], []
        for i in numbers:
            others = [j for j in numbers if j != i and labels[j] == labels[i]]
            if others:
                correlation.append(np.mean([pearsonr(maps[i].ravel(), maps[j].ravel())[0] for j in others]))
        for label in range(3):
            own = np.array([centroid(maps[i]) for i in numbers if labels[i] == label])
            if len(own) > 1:
                scattered.append(math.sqrt(own.var(0, ddof=1).sum()))
        assert rows[name] == {
            "n": len(numbers),
            "distance": pytest.approx(away[numbers].mean(), rel=1e-5),
            "correlation": pytest.approx(np.mean(correlation), abs=1e-5),
            "spread": pytest.approx(np.mean([slow_spread(maps[i]) for i in numbers]), rel=1e-5),
            "centroid_scatter": pytest.approx(np.mean(scattered), rel=1e-4),
        }
    assert list(rows) == ["correct", "wrong"]
    assert rows["wrong"]["n"] == 4
    all_right = found._replace(right=np.ones(16, bool))
    assert list(paper.scatter(all_right, means)) == ["correct"]


def drawn_units(clusters, seed, n_resamples=2000):
    """Rows (lists of image numbers) of each resample, with the clusters drawn as `statistics.bootstrap` draws them."""
    names, number = np.unique(clusters, return_inverse=True)
    for drawn in np.random.default_rng(seed).integers(len(names), size=(n_resamples, len(names))):
        yield np.concatenate([np.flatnonzero(number == k) for k in drawn])


@pytest.mark.parametrize("clusters", [None, np.array(list("aabbccdeefgh"))])
def test_within_between_by_a_double_loop_and_its_interval_by_resampling(clusters):
    maps, labels = looked().true_maps, torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 0])
    maps[labels == 1] = maps[labels == 1] + 0.3 * maps[2]
    units = [unit(m) for m in maps.double().numpy()]
    apart = [[sum((a - b) ** 2 for a, b in zip(x.ravel(), y.ravel())) for y in units] for x in units]

    def slow(rows):
        same, other = [], []
        for a, b in itertools.combinations(rows, 2):
            if labels[a] != labels[b]:
                other.append(apart[a][b])
            elif a != b:  # an image that is drawn twice is no pair
                same.append(apart[a][b])
        return np.mean(same) / np.mean(other) if same and other else math.nan

    labels_, labels = labels, labels.tolist()
    found = paper.within_between(maps, labels_, clusters, 3)
    drawn = [slow(rows.tolist()) for rows in drawn_units(np.arange(12) if clusters is None else clusters, 3)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    assert found.n == 12
    assert [found.value, found.low, found.high] == pytest.approx([slow(range(12)), low, high], rel=1e-5)
    assert found.low < found.value < found.high
    grown = paper.within_between(maps * torch.linspace(1, 9, 12)[:, None, None], labels_, clusters, 3)
    assert grown.value == pytest.approx(found.value, rel=1e-5)


def test_within_between_is_zero_for_one_map_a_class_and_one_without_classes():
    one = torch.rand(3, 5, 4, generator=generator(2))
    labels = torch.arange(12) % 3
    found = paper.within_between(one[labels], labels, None, 0)
    assert (found.value, found.high) == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))
    random = torch.rand(300, 5, 4, generator=generator(3))
    found = paper.within_between(random, torch.arange(300) % 3, None, 0)
    assert found.low < 1 < found.high


@pytest.mark.parametrize(
    ("labels", "clusters"),
    [
        ([0] * 8, None),
        ([0, 1, 2, 3], None),
        ([0, 0, 1], None),
        ([0, 0, 0, 0, 1, 1, 1, 1], "aabbccdd"),  # a class of two patients: every eighth resample lacks one
        ([0, 0, 0, 0, 1, 1, 1, 1], "abcaabca"),  # three patients: every ninth has no pair
        ([0, 1], "aa"),
    ],
)
def test_within_between_of_too_few_groups_is_undefined(labels, clusters):
    maps = torch.rand(len(labels), 5, 4, generator=generator(1))
    names = None if clusters is None else np.array(list(clusters))
    found = paper.within_between(maps, torch.tensor(labels), names, 0)
    assert found == Estimate(None, len(labels), note="fewer than two classes with images of four groups")


def pairs_of(maps, labels, right):
    """‖a − b‖² of unit maps, by kind: every pair of maps of one class on one side."""
    units, found = [unit(m) for m in maps.double().numpy()], {}
    for a, b in itertools.combinations(range(len(units)), 2):
        if labels[a] == labels[b] and right[a] == right[b]:
            found.setdefault((labels[a], right[a]), []).append(((units[a] - units[b]) ** 2).sum())
    return found


def test_dispersion_is_the_mean_over_the_pairs_of_a_kind():
    maps = torch.rand(12, 5, 4, generator=generator(6)) * torch.linspace(1, 9, 12)[:, None, None]
    labels, right = [0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 2], np.array([True, False] * 4 + [True] * 4)
    terms = paper.dispersion(maps, torch.tensor(labels), right)
    kinds = list(zip(labels, right))
    for kind, pairs in pairs_of(maps, labels, right).items():
        own = terms[[k == kind for k in kinds]]
        assert own.mean() == pytest.approx(np.mean(pairs), rel=1e-6)
    assert np.flatnonzero(np.isnan(terms)).tolist() == [11]  # the only map of its kind
    alike = paper.dispersion(maps[:1].expand(4, 5, 4), torch.zeros(4, dtype=torch.int64), np.ones(4, dtype=bool))
    assert alike == pytest.approx(0, abs=1e-6)
    corners = torch.zeros(2, 2, 2)
    corners[0, 0, 0], corners[1, 1, 1] = 3, 7
    assert paper.dispersion(corners, torch.zeros(2, dtype=torch.int64), np.ones(2, dtype=bool)).tolist() == [2, 2]


def test_dispersion_has_the_interval_of_resampled_pairs():
    maps = torch.rand(120, 3, 3, generator=generator(7)) ** torch.linspace(1, 6, 120)[:, None, None]
    terms = paper.dispersion(maps, torch.zeros(120, dtype=torch.int64), np.ones(120, dtype=bool))
    found = estimates.mean(terms, None, 0)
    units = np.array([unit(m) for m in maps.double().numpy()]).reshape(120, 9)
    rng, drawn = np.random.default_rng(1), []
    for _ in range(400):
        rows = rng.integers(120, size=120)
        apart = ((units[rows][:, None] - units[rows]) ** 2).sum(2)
        drawn.append(apart[rows[:, None] != rows].mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.high - found.low == pytest.approx(high - low, rel=0.1)  # that of the maps' own means: half of it


def test_several_pieces_by_hand():
    cases = {
        "one": [[0, 0, 0, 0], [0, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        "two corners": [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]],
        "a weak second": [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0.4]],
        "a second just above half": [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0.6]],
        "neighbours": [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        "nothing": [[0] * 4] * 4,
        "flat": [[2] * 4] * 4,
    }
    maps = torch.tensor(list(cases.values()), dtype=torch.float32)
    found = dict(zip(cases, paper.several_pieces(maps, 16).tolist()))
    assert found == {name: name in ("two corners", "a second just above half") for name in cases}
    two = torch.zeros(2, 8, 8)  # upsampled, the first peak has (15/16)² of its height, the one in the corner all of it
    two[:, 4, 4] = 1
    two[0, 0, 7], two[1, 0, 7] = 0.45, 0.43
    assert paper.several_pieces(two, 64).tolist() == [True, False]


def test_energy_inside_and_the_area_by_hand():
    masks = torch.zeros(4, 4, 4, dtype=torch.bool)
    masks[:, :2, :2] = True
    masks[3] = True
    maps = torch.zeros(4, 4, 4)
    maps[0, 0, 0], maps[0, 3, 3], maps[0, 2, 0] = 6, 2, -5
    maps[1] = -1
    maps[3] = 0.5
    inside, area = paper.energy(maps, masks)
    assert inside.tolist() == [6 / 8, 0.25, 0.25, 1]
    assert area.tolist() == [0.25, 0.25, 0.25, 1]
    assert inside.dtype == area.dtype == np.float64


def test_energy_is_of_the_map_at_the_masks_size():
    maps = torch.rand(3, 2, 2, generator=generator(7))
    masks = torch.rand(3, 8, 6, generator=generator(8)) > 0.6
    inside, area = paper.energy(maps, masks)

    def at(saliency, y, x):  # bilinear between the centres of the cells, flat beyond the outer ones
        i, j = (min(max((p + 0.5) * 2 / side - 0.5, 0), 1) for p, side in ((y, 8), (x, 6)))
        rows = [(1 - j) * saliency[r][0] + j * saliency[r][1] for r in (0, 1)]
        return (1 - i) * rows[0] + i * rows[1]

    for n in range(3):
        cells = [(at(maps[n].tolist(), y, x), bool(masks[n, y, x])) for y in range(8) for x in range(6)]
        assert inside[n] == pytest.approx(sum(v for v, m in cells if m) / sum(v for v, _ in cells), rel=1e-5)
        assert area[n] == pytest.approx(sum(m for _, m in cells) / 48)


# guidance by masks ----------------------------------------------------------------------------------------------


def masked(n, seed=0, dtype=torch.float32):
    """Images, labels, and masks of 10 × 8 pixels (two a cell and side), every third one empty."""
    random = generator(seed, "masks")
    masks = torch.rand(n, 10, 8, generator=random) < 0.04
    masks[:, 3, 5], masks[2::3] = True, False
    return *data(n, seed, dtype), masks


def slow_outside(maps, masks):
    """1 − Σ inside / Σ of each map with a mask; a cell is inside if one of its pixels is."""
    shares = []
    for one, mask in zip(maps, masks.tolist()):
        if not any(map(any, mask)):
            continue
        h, w = one.shape
        high, wide = len(mask) // h, len(mask[0]) // w
        inside = sum(
            float(one[i][j])
            for i, j in itertools.product(range(h), range(w))
            if any(mask[y][x] for y in range(i * high, i * high + high) for x in range(j * wide, j * wide + wide))
        )
        total = float(np.sum(one))
        shares.append(1 - inside / total if total else 1.0)
    return sum(shares) / len(shares) if shares else 0.0


@pytest.mark.parametrize("weight", [0.0, 0.5, 10.0])
def test_the_loss_by_masks_is_cross_entropy_and_lambda_times_the_energy_outside(weight):
    watched, (images, labels, masks) = with_means(small()), masked(8)
    before = as_numbers(watched.state_dict())
    found = paper.mask_objective(watched, (images, labels, masks), weight=weight)
    assert set(found) == {"loss", "cross_entropy", "accuracy", "cam"}
    term = slow_outside(slow_maps(watched.network, images, labels), masks)
    assert 0.1 < term < 1
    assert found["cam"].item() == pytest.approx(term, rel=1e-5)
    cross_entropy = slow_cross_entropy(watched(images), labels)
    assert found["loss"].item() == pytest.approx(cross_entropy + weight * term, rel=1e-5)
    hits = [row.index(max(row)) == c for row, c in zip(watched(images).tolist(), labels.tolist())]
    assert found["accuracy"].item() == pytest.approx(sum(hits) / 8)
    assert_same(before, watched.state_dict())  # no class mean takes part
    without = (images, labels, torch.zeros_like(masks))
    assert paper.mask_objective(watched, without, weight=weight)["cam"].item() == 0


def test_energy_outside_at_its_ends_and_of_a_map_without_positive_values():
    maps, masks = torch.zeros(3, 5, 4, requires_grad=True), torch.zeros(3, 10, 8, dtype=torch.bool)
    masks[:, 5, 2] = True  # a pixel of cell (2, 1)
    values = torch.zeros(3, 5, 4)
    values[0, 2, 1], values[1, 0, 0], values[2] = 7.0, 3.0, -1.0
    for row, expected in enumerate((0.0, 1.0, 1.0)):
        one = values[[row]].requires_grad_()
        term = paper.energy_outside(one, masks[[row]])
        assert term.item() == expected
        assert torch.autograd.grad(term, one)[0].isfinite().all()
    values[0, 4, 3] = 21.0  # three quarters outside
    assert paper.energy_outside(values[:1], masks[:1]).item() == pytest.approx(0.75)
    assert paper.energy_outside(values[:1] * 1e-3, masks[:1]).item() == pytest.approx(0.75)
    masks[1:] = False  # only the first image has a mask
    assert paper.energy_outside(values, masks).item() == pytest.approx(0.75)
    term = paper.energy_outside(maps, masks)
    assert (term.item(), torch.autograd.grad(term, maps)[0].abs().max().item()) == (1.0, 0.0)


def test_gradient_of_the_loss_by_masks_is_that_of_finite_differences():
    model = with_means(small(torch.float64, smooth=True, tail=True))
    batch = masked(6, dtype=torch.float64)
    weights = dict(model.network.named_parameters())

    def term():  # the cross-entropy is computed in float32
        return paper.mask_objective(model, batch, weight=2.0)["cam"]

    found = torch.autograd.grad(term(), list(weights.values()), allow_unused=True, materialize_grads=True)
    random = generator(5, "steps")
    for (name, weight), slope in zip(weights.items(), found):
        step, ends = torch.randn(weight.shape, generator=random, dtype=weight.dtype), []
        for shift in (1e-6, -2e-6, 1e-6):
            weight.data.add_(step, alpha=shift)
            ends.append(term().item())
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx((slope * step).sum().item(), rel=1e-5, abs=1e-8), name
        assert (slope.abs().max() > 1e-4) == (name != "head.bias")  # the linear layer: through the derivative alone
    both = paper.mask_objective(model, batch, weight=2.0)
    together, apart = (
        torch.autograd.grad(value, model.network.head.weight)[0]
        for value in (both["loss"], paper.mask_objective(model, batch, weight=0.0)["loss"])
    )
    torch.testing.assert_close(together - apart, 2 * found[-2], rtol=1e-5, atol=1e-7)


def test_masks_move_with_their_images_by_the_same_random_numbers():
    images = torch.rand(12, 1, 50, 50, generator=generator(6)) * 0.2 + 0.4
    masks = torch.rand(12, 50, 50, generator=generator(7)) > 0.5
    labels = torch.arange(12)
    plain, _ = paper.augment((images, labels), generator(SEED))
    moved, same, moved_masks = paper.augment_with_masks((images, labels, masks), generator(SEED))
    assert torch.equal(moved, plain)
    assert same is labels
    assert moved_masks.dtype == torch.bool
    assert torch.equal(moved_masks, paper.shared.shifted(masks[:, None].float(), generator(SEED), 0.06)[:, 0] > 0)
    assert (moved_masks != masks).any()
    painted = torch.where(masks, 0.9, 0.1)[:, None]  # an image that is its mask, before and after
    after, _, again = paper.augment_with_masks((painted, labels, masks), generator(1))
    assert all(one[mask].min() > one[~mask].max() for one, mask in zip(after[:, 0], again))


def test_training_by_masks_draws_the_maps_to_them_and_needs_masks():
    images = image_set([0, 1, 2] * 4)
    with pytest.raises(ValueError, match="made has no masks to guide by"):
        paper.guided_by_masks(images, images, 1.0)
    masks = torch.zeros(12, 5, 4, dtype=torch.bool)
    masks[:, 3:, 2:] = True
    guided = replace(images, masks=masks)
    watched = watch(small(norm=True), 12)
    options = {"epochs": 30, "optimizer": partial(torch.optim.AdamW, lr=0.02), "seed": SEED, "batch_size": 6}
    history = training.fit(watched, **options, **paper.guided_by_masks(guided, guided, 5.0))
    told = history[["train_cam", "val_cam"]]
    assert (told.iloc[-1] < told.iloc[0] - 0.1).all()
    assert torch.isnan(watched.maps).all()  # the class means were never taken
    judged = paper.judge(watched.network, "features", guided)
    seen = judged.true_maps.amax((1, 2)) > 0  # a map that is empty once has no gradient and stays so
    assert seen.sum() > 3
    assert paper.energy_outside(judged.true_maps[seen], masks[seen]).item() < 0.1
    assert paper.energy_outside(judged.true_maps, masks).item() == pytest.approx(history["val_cam"].iloc[-1], rel=1e-4)


def test_moved_onto_the_object_by_loops():
    masks = torch.rand(9, 10, 8, generator=generator(3)) > 0.7
    masks[[2, 5]] = False
    groups = np.array(list("aabbccdde"))
    maps = torch.rand(2, 9, 5, 4, generator=generator(4))
    before, after = (paper.Judged(None, None, torch.zeros(9), None, one, None) for one in maps)
    found = paper.moved_onto_object(before, after, masks, groups, SEED)
    rows = [i for i in range(9) if masks[i].any()]
    shares = []
    for one in maps:
        large = nn.functional.interpolate(one[:, None], (10, 8), mode="bilinear")[:, 0]
        shares.append([(large[i] * masks[i]).sum().item() / large[i].sum().item() for i in rows])
    assert found["inside_before"].value == pytest.approx(np.mean(shares[0]), rel=1e-5)
    assert found["inside_after"].value == pytest.approx(np.mean(shares[1]), rel=1e-5)
    assert found["inside_difference"].value == pytest.approx(np.mean(np.subtract(*shares[::-1])), abs=1e-6)
    assert found["inside_difference"].n == 7
    gained = estimates.mean(np.subtract(*shares[::-1]), groups[rows], SEED)
    assert found["inside_difference"].low == pytest.approx(gained.low, abs=1e-6)
    for none in (None, torch.zeros_like(masks)):
        nothing = paper.moved_onto_object(before, after, none, groups, SEED)
        assert [one.value for one in nothing.values()] == [None] * 3
