"""Paper 5's comparison of maps: input, networks, reference maps, scores, what follows from them, ledgers."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from checks import as_trained, augmented_from_its_generator_alone
from torch import nn

from xai_utils.data.imageset import ImageSet
from xai_utils.explain import LRPBN, lrp
from xai_utils.explain.components import c1c
from xai_utils.metrics import estimates, faithfulness
from xai_utils.metrics.statistics import Estimate
from xai_utils.models import AttentionBranchNetwork, Gate
from xai_utils.papers import p5_lrp_bn as paper
from xai_utils.seeds import generator
from xai_utils.suite import claims

SEED = 0


def image_set(pixels, labels=None, masks=None, class_names=("no_crack", "crack"), groups=None):
    n = len(pixels)
    return ImageSet(
        name="made",
        pixels=pixels,
        labels=torch.zeros(n, dtype=torch.int64) if labels is None else torch.tensor(labels),
        split=np.array(["train"] * n),
        ids=np.array([f"image {i}" for i in range(n)]),
        class_names=class_names,
        provenance={"name": "made", "sha256": "", "variant": "own"},
        masks=masks,
        groups=groups,
    )


def noise(*shape, seed=1, dtype=torch.float32):
    return torch.rand(*shape, generator=generator(seed, "noise"), dtype=dtype)


# data and networks ----------------------------------------------------------------------------------------------


def test_scale_of_by_sums_over_all_pixels_and_scaled_undoes_it():
    pixels = noise(3, 2, 4, 5) * torch.tensor([0.5, 1.0])[:, None, None]
    scale = paper.scale_of(image_set(pixels))
    for channel in range(2):
        values = [float(v) for image in pixels for v in image[channel].flatten()]
        mean = sum(values) / 60
        assert scale.mean[channel] == pytest.approx(mean)
        assert scale.std[channel] == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / 59))
    found = paper.scaled(pixels, scale)
    for place in itertools.product(range(3), range(2), range(4), range(5)):
        channel = place[1]
        assert found[place].item() == pytest.approx(
            (pixels[place].item() - scale.mean[channel]) / scale.std[channel], abs=1e-5
        )
    assert found.dtype == torch.float32


def test_scale_of_8_bit_pixels_is_that_of_their_float_copies():
    stored = (noise(50, 3, 9, 9) * torch.tensor([255.99, 30, 200])[:, None, None]).byte()
    ours, theirs = paper.scale_of(image_set(stored)), paper.scale_of(image_set(stored.float() / 255))
    for one, other in zip(ours, theirs):
        assert one == pytest.approx(other, rel=1e-12)
        assert torch.equal(torch.tensor(one), torch.tensor(other))  # what `scaled` computes with


def test_a_channel_without_any_variation_is_scaled_to_zero():
    pixels = torch.cat([noise(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.25)], 1)
    scale = paper.scale_of(image_set(pixels))
    assert scale.std[1] == 1e-6
    assert torch.equal(paper.scaled(pixels, scale)[:, 1], torch.zeros(2, 4, 4))


@pytest.mark.parametrize("kind", ["abn", "resnet"])
def test_network_depends_on_its_seed_alone(kind):
    def make(before, seed):
        torch.manual_seed(before)
        return paper.network(kind, 18, 3, 2, 1, seed)

    one, again, other = make(11, 7), make(12, 7), make(11, 8)
    for (name, a), b, c in zip(one.state_dict().items(), again.state_dict().values(), other.state_dict().values()):
        assert torch.equal(a, b), name
        assert not name.endswith(("conv1.weight", "conv2.weight", "fc.weight")) or not torch.equal(a, c), name
    assert one.training
    assert one(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


def test_network_of_either_kind_depth_and_options():
    found = paper.network("abn", 18, 3, 2, 4, SEED, theta=0.25, blocks=3, residual=True, max_pool=False)
    assert isinstance(found, AttentionBranchNetwork)
    assert (found.threshold.theta, found.gate.residual) == (0.25, True)
    assert [name for name, _ in found.extractor.named_children()][-1] == "block3"
    assert not any(isinstance(module, nn.MaxPool2d) for module in found.attention.modules())
    assert (found.extractor.conv1.in_channels, found.extractor.conv1.out_channels) == (4, 2)
    for depth, blocks in ((18, 8), (34, 16), (50, 16)):
        plain, branched = (paper.network(kind, depth, 2, 1, 1, SEED) for kind in ("resnet", "abn"))
        assert sum(len(getattr(plain, f"layer{i}")) for i in (1, 2, 3, 4)) == blocks
        assert hasattr(branched.perception, f"block{blocks}")
        assert hasattr(plain.layer1[0], "conv3") == hasattr(branched.extractor.block1, "conv3") == (depth == 50)
    assert not torch.equal(plain.conv1.weight, branched.extractor.conv1.weight)  # each kind has its own draws


def test_network_refuses_what_it_does_not_know():
    expected = "expected 'abn' or 'resnet', and one of 18, 34, 50"
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for kind, depth in (("vgg", 18), ("abn", 20), ("resnet", 101)):
        with pytest.raises(ValueError, match=f"kind is '{kind}' and depth {depth}; {expected}"):
            paper.network(kind, depth, 2, 2, 1, SEED)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="blocks: got 0; ResNet-18 has 8"):
        paper.network("abn", 18, 2, 2, 1, SEED, blocks=0)
    with pytest.raises(ValueError, match="n_classes=0"):
        paper.network("resnet", 18, 0, 2, 1, SEED)


def test_with_theta_empties_a_copy_below_the_threshold(tiny):
    model, images, _ = tiny
    before = model(images)
    found = model.branches(images).attention
    theta = found.median().item()
    changed = paper.with_theta(model, theta)
    expected = model.perception(model.gate(model.extractor(images), torch.where(found >= theta, found, 0 * found)))
    assert torch.equal(changed(images), expected)
    assert torch.equal(model(images), before)
    assert not torch.equal(expected, before)
    assert model.threshold.theta == 0
    assert changed.training == model.training
    with pytest.raises(ValueError, match=r"theta: got 1\.5"):
        paper.with_theta(model, 1.5)


def test_without_gate_the_perception_branch_sees_h(tiny):
    model, images, labels = tiny
    before, changed = model(images), paper.without_gate(model)
    expected = model.perception(model.extractor(images))
    assert torch.equal(changed(images), expected)
    assert not torch.equal(expected, before)
    assert torch.equal(model(images), before)
    parts = LRPBN(changed).parts(images, labels)
    assert (parts.attention == 1).all()
    assert torch.equal(parts.product, parts.relevance)
    assert not torch.allclose(parts.from_perception, LRPBN(model).parts(images, labels).from_perception)


@pytest.fixture
def drawn(monkeypatch):
    """Let `torch.rand` return given numbers for one image; without any, the image stays what it is."""

    def replace(turn=0.0, size=1.0, shift=(0.5, 0.5), flip=0.0, sharp=0.5):
        answers = iter([[turn], [size], [list(shift)], [flip], [sharp]])
        monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.tensor(next(answers)).reshape(shape))

    return replace


def read_at(picture, u, v):
    """Bilinear value of a list of rows at (u, v), from −1 to 1 between its outer edges, mirrored at them."""
    places = []
    for along, n in ((v, len(picture)), (u, len(picture[0]))):
        position = (along + 1) / 2 * n % (2 * n)  # in pixels from the first edge
        position = (2 * n - position if position > n else position) - 0.5
        position = min(max(position, 0.0), n - 1)
        low = min(int(position), n - 2)
        places.append(((low, 1 - position + low), (low + 1, position - low)))
    return sum(picture[i][j] * p * q for (i, p), (j, q) in itertools.product(*places))


def resampled(picture, turn, size, shift, flip):
    """What `augment` makes of one channel with these random numbers: flip, then turn, shrink and move the view."""
    n, angle, share = len(picture), 2 * math.pi * turn, 0.8 + 0.2 * size
    move = [(2 * s - 1) * (1 - share) for s in shift]
    rows = []
    for i, j in itertools.product(range(n), range(n)):
        y, x = (2 * i + 1) / n - 1, (2 * j + 1) / n - 1
        x = x if flip < 0.5 else -x
        u, v = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
        rows.append(read_at(picture, share * u + move[0], share * v + move[1]))
    return np.array(rows).reshape(n, n)


@pytest.mark.parametrize(
    "draws",
    [
        {"turn": 0.125},  # the corners lie outside
        {"turn": 0.4, "size": 0.3, "shift": (0.9, 0.2), "flip": 0.7},
        {"turn": 0.77, "size": 0.0, "shift": (0.0, 1.0)},
        {"size": 0.0, "shift": (1.0, 0.0)},
        {"size": 0.5, "flip": 0.5},
    ],
)
def test_augment_by_a_loop_over_the_pixels(drawn, draws):
    image = noise(1, 2, 9, 9)
    drawn(**draws)
    found, labels = paper.augment((image, torch.tensor([1])), None)
    for channel in range(2):
        expected = resampled(
            image[0, channel].tolist(), **{"turn": 0, "size": 1, "shift": (0.5, 0.5), "flip": 0} | draws
        )
        np.testing.assert_allclose(found[0, channel].numpy(), expected, atol=1e-5)
    assert labels.tolist() == [1]


def test_augment_flips_turns_and_gives_the_image_back(drawn):
    image = noise(1, 2, 8, 8) * 7 - 3  # scaled images have any range
    batch = (image, torch.tensor([0]))

    def expect(expected, **draws):
        drawn(**draws)
        torch.testing.assert_close(paper.augment(batch, None)[0], expected, atol=1e-5, rtol=0)

    expect(image)
    expect(image, shift=(1.0, 0.0))  # the whole side leaves nowhere to go
    expect(image.flip(3), flip=0.5)
    expect(image, flip=0.49)
    expect(image.flip(2, 3), turn=0.5)
    expect(image.rot90(1, (2, 3)), turn=0.25)
    expect(image.rot90(-1, (2, 3)), turn=0.75)


@pytest.mark.parametrize("sharp", [0.0, 0.49])
def test_augment_keeps_the_pixels_of_half_of_the_images(drawn, sharp):
    image = noise(1, 2, 20, 20) * 7 - 3
    for turn, flip, (right, down) in itertools.product((0.1, 0.3, 0.6, 0.99), (0.2, 0.7), ((-2, 1), (0, 0), (2, -1))):
        drawn(turn=turn, size=0.3, shift=(0.5 + 0.24 * right, 0.5 + 0.26 * down), flip=flip, sharp=sharp)
        found = paper.augment((image, torch.tensor([0])), None)[0][0].numpy()
        wide = np.pad(image[0].numpy(), ((0, 0), (2, 2), (2, 2)), "symmetric")
        moved = wide[:, 2 + down : 22 + down, 2 + right : 22 + right]
        expected = np.rot90(moved, int(4 * turn), (1, 2))
        np.testing.assert_allclose(found, expected[:, :, ::-1] if flip >= 0.5 else expected, atol=1e-4)


def test_augment_resamples_half_of_the_images():
    image = torch.eye(20)[None, None].expand(400, -1, -1, -1)
    found = paper.augment((image, torch.zeros(400)), generator(SEED, "augment"))[0]
    kept = ((found - found.round()).abs() < 1e-4).all(3).all(2)
    assert 160 < kept.sum() < 240


def test_augment_crops_at_least_four_fifths_and_inside_the_image(drawn):
    ramp = ((2 * torch.arange(20) + 1) / 20 - 1).expand(1, 1, 20, 20)  # its value is where it lies, −1 to 1
    batch = (ramp, torch.tensor([0]))
    middle = ramp[0, 0, 0, 1:-1]
    for size, share in ((0.0, 0.8), (0.5, 0.9), (1.0, 1.0)):
        for across in (0.0, 0.5, 1.0):
            drawn(size=size, shift=(across, 0.5))
            found = paper.augment(batch, None)[0][0, 0, 7, 1:-1]
            expected = share * middle + (2 * across - 1) * (1 - share)
            torch.testing.assert_close(found, expected.clamp(-0.95, 0.95), atol=1e-5, rtol=0)


def test_augment_draws_from_its_generator_alone_image_by_image():
    augmented_from_its_generator_alone(paper.augment, noise(32, 1, 60, 60), torch.arange(32))


def some_scores(n=40, seed=3):
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(level, 0.3, n) for name, level in zip(paper.METHODS, (0.5, 0.1, 0.9, 0.4, 0.45))}
    return values, np.repeat(np.arange(8), n // 8)


def test_with_intervals_by_map_and_c1c():
    values, segments = some_scores()
    rows = [{"map": name, "c1c": c, "image": i, "id_score": v + c} for name, one in values.items()
            for c in (False, True) if c or name != "ABN" for i, v in reversed(list(enumerate(one)))]  # fmt: skip
    found = paper.with_intervals(pd.DataFrame(rows), "id_score", segments, SEED)
    assert list(found.index) == [name for name in paper.METHODS if name != "ABN"] + ["ABN"]
    for name, one in values.items():
        for which, lift in (("as it is", 0), ("with C1C", 1)):
            if (name, lift) == ("ABN", 0):
                assert found.loc[name, which].isna().all()
                continue
            expected = estimates.mean(one + lift, segments, SEED)
            assert found.loc[name, which].tolist() == pytest.approx([expected.value, expected.low, expected.high])


def test_crack_crops_are_the_first_cracks_with_a_mask():
    masks = torch.zeros(6, 4, 4, dtype=torch.bool)
    masks[[0, 1, 3, 5], 2, 1] = True
    images = image_set(noise(6, 1, 4, 4), [0, 1, 1, 1, 1, 1], masks)
    assert paper.crack_crops(images, 2).ids.tolist() == ["image 1", "image 3"]
    found = paper.crack_crops(images, 9)
    assert found.ids.tolist() == ["image 1", "image 3", "image 5"]
    assert torch.equal(found.masks, masks[[1, 3, 5]])
    turned = image_set(noise(6, 1, 4, 4), [0, 1, 1, 1, 1, 1], masks, ("crack", "no_crack"))
    assert paper.crack_crops(turned, 9).ids.tolist() == ["image 0"]


def test_crack_crops_come_from_each_segment_in_turn():
    segments = np.array(list("aaaaabbcbb"))
    images = image_set(noise(10, 1, 4, 4), [1, 0, 1, 1, 1, 1, 1, 1, 0, 1], torch.ones(10, 4, 4) > 0, groups=segments)
    order = [0, 5, 7, 2, 6, 3, 9, 4]  # the first of a, b, c; the second of a, b; …
    assert paper.crack_crops(images, 9).ids.tolist() == [f"image {i}" for i in order]
    assert paper.crack_crops(images, 3).groups.tolist() == ["a", "b", "c"]


# maps to compare with -------------------------------------------------------------------------------------------


def some_masks(n, height, width):
    masks = noise(n, height, width, seed=5) > 0.97
    masks[0] = False
    masks[0, height // 3, : width // 2] = True
    masks[:, 2, 3] = True
    return masks


def gaussian_rows(n, deviation):
    """Weights (n, n) of a Gaussian along one side, cut at four deviations, the side mirrored at its edges."""
    weights, reach = np.zeros((n, n)), int(4 * deviation + 0.5)
    for i in range(n):
        for k in range(-reach, reach + 1):
            j = (i + k) % (2 * n)
            weights[i, j if j < n else 2 * n - 1 - j] += math.exp(-((k / deviation) ** 2) / 2)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("height", "width", "reach"), [(12, 12, 1), (14, 9, 1), (42, 30, 2), (56, 56, 2)])
def test_references_by_loops(height, width, reach):  # 42 / 28 = 1.5 rounds to 2
    masks = some_masks(2, height, width)
    found = paper.references(masks, SEED)
    assert list(found) == ["true mask", "dilated mask", "blurred mask", "box", "Gaussian", "uniform", "random"]
    for name, maps in found.items():
        assert (maps.shape, maps.dtype) == (masks.shape, torch.float32), name
    for image, mask in enumerate(masks):
        true = [(i, j) for i in range(height) for j in range(width) if mask[i, j]]
        top, bottom = min(i for i, _ in true), max(i for i, _ in true)
        left, right = min(j for _, j in true), max(j for _, j in true)
        exact, wide, box, centred = (np.zeros((height, width)) for _ in range(4))
        for i, j in true:
            exact[i, j] = 1
            wide[max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1] = 1
        for i, j in itertools.product(range(height), range(width)):
            box[i, j] = top <= i <= bottom and left <= j <= right
            y, x = i / (height - 1) - 0.5, j / (width - 1) - 0.5
            centred[i, j] = math.exp(-(y * y + x * x) / (2 * 0.25**2))
        blurred = gaussian_rows(height, reach) @ exact @ gaussian_rows(width, reach).T
        expected = {"true mask": exact, "dilated mask": wide, "blurred mask": blurred, "box": box}
        expected |= {"Gaussian": centred, "uniform": np.ones((height, width))}
        for name, values in expected.items():
            np.testing.assert_allclose(found[name][image].numpy(), values, atol=2e-6, err_msg=name)


def test_the_random_map_follows_from_its_seed_and_box_from_a_single_pixel():
    masks = some_masks(4, 20, 20)
    torch.manual_seed(3)
    one, again, other = (paper.references(masks, seed)["random"] for seed in (SEED, SEED, SEED + 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert len({tuple(values.flatten().tolist()) for values in one}) == 4
    assert (one.min() >= 0, one.max() < 1, abs(one.mean() - 0.5) < 0.05) == (True, True, True)
    dot = torch.zeros(1, 9, 9, dtype=torch.bool)
    dot[0, 8, 0] = True
    assert torch.equal(paper.references(dot, SEED)["box"], dot.float())


# how maps are compared ------------------------------------------------------------------------------------------

SCALE = paper.Scale((0.5, 0.25), (0.2, 0.1))


@pytest.fixture(scope="module")
def crowd():
    """A linear network of three classes, images, labels and three maps."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 8 * 8, 3)).eval()
    images = paper.scaled(noise(3, 2, 8, 8, seed=6), SCALE)
    maps = {"zigzag": noise(3, 8, 8, seed=7) - 0.3, "alpha": noise(3, 8, 8, seed=8), "flat": torch.ones(3, 8, 8)}
    return model, images, torch.tensor([2, 0, 1]), maps


@pytest.mark.parametrize(
    "options",
    [{}, {"baseline": "black"}, {"baseline": "blur", "steps": 5}, {"choices": [True]}, {"ties": "together"}],
)
def test_faithfulness_is_insertion_and_deletion_map_by_map(crowd, options):
    model, images, labels, maps = crowd
    found = paper.faithfulness(model, images, labels, maps, SCALE, **options)
    assert list(found) == ["map", "c1c", "image", "insertion", "deletion", "id_score", "tied", "empty"]
    options = dict(options)
    choices = options.pop("choices", (False, True))
    expected = [(name, chosen, image) for name in maps for chosen in choices for image in range(3)]
    assert list(found[["map", "c1c", "image"]].itertuples(index=False, name=None)) == expected
    assert found.index.tolist() == list(range(len(expected)))
    options = {"steps": 28, "baseline": "zero"} | options
    for name, chosen, image in expected:
        row = found[(found["map"] == name) & (found["c1c"] == chosen) & (found["image"] == image)].iloc[0]
        values = c1c(maps[name][[image]]) if chosen else maps[name][[image]]
        one = faithfulness.insertion_deletion(
            model, images[[image]], values, labels[[image]], normalization=SCALE, **options
        )
        assert row["insertion"] == pytest.approx(one.insertion_auc.item(), abs=1e-6)
        assert row["deletion"] == pytest.approx(one.deletion_auc.item(), abs=1e-6)
        assert row["id_score"] == pytest.approx(one.insertion_auc.item() - one.deletion_auc.item(), abs=1e-6)
        assert row["tied"] == pytest.approx(one.tied.item(), abs=1e-6)


def test_in_every_order_is_insertion_and_deletion_one_map_order_and_image_at_a_time(crowd):
    model, images, labels, maps = crowd
    half = maps["alpha"].clone()
    half[1] = half[1].round(decimals=1)  # equal pixels in one image of three
    maps = {"zigzag": maps["zigzag"], "half": half, "flat": maps["flat"]}
    found = paper.in_every_order(model, images, labels, maps, SCALE, steps=5, seed=SEED)
    assert len(found) == 3 * 3 * 3 * 3
    for row in found.to_dict("records"):
        name, n, ties = row["map"], row["image"], row["ties"]
        options = {"steps": 5, "baseline": row["baseline"], "normalization": SCALE, "ties": ties, "seed": SEED}
        if ties == "random" and name == "flat":  # the n-th image of a call has the n-th order
            one = faithfulness.insertion_deletion(model, images, maps[name], labels, **options)
            values = [getattr(one, column)[n].item() for column in ("insertion_auc", "deletion_auc", "id_score")]
        else:
            cut = slice(n, n + 1)
            one = faithfulness.insertion_deletion(model, images[cut], maps[name][cut], labels[cut], **options)
            values = [getattr(one, column).item() for column in ("insertion_auc", "deletion_auc", "id_score")]
        assert [row["insertion"], row["deletion"], row["id_score"]] == pytest.approx(values, abs=1e-6)
        assert (row["tied"] > 0) == (name == "flat" or (name, n) == ("half", 1))
    by_order = found[found["map"] == "flat"].groupby("ties")["id_score"].mean()
    assert by_order.nunique() == 3  # and the orders do differ where pixels are equal


def test_no_picture_is_scored_twice_for_c1c_or_another_order(crowd):
    """Of each image that hides: the two ends, and steps between them that differ."""
    model, images, labels, maps = crowd
    sizes = []
    handle = model[0].register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))

    def scored(measure, **options):
        sizes.clear()
        measure(model, images, labels, steps=5, scale=SCALE, **options)
        return sum(sizes)

    twice = {"once": maps["alpha"], "again": 2 * maps["alpha"]}
    looks = scored(paper.in_every_order, maps={"alpha": maps["alpha"]}) - 3 * 3 * 10  # at the model, before
    assert scored(paper.in_every_order, maps=twice) == looks + 3 * 3 * 10
    together = 2  # of a flat map the ends alone
    assert scored(paper.in_every_order, maps={"flat": maps["flat"]}) == looks + 3 * 3 * (8 + 8 + together)
    assert scored(paper.faithfulness, maps=twice, choices=[False]) == looks / 3 + 3 * 10
    handle.remove()


def test_highest_keeps_a_share_and_what_equals_its_last_pixel():
    maps = torch.arange(20.0).reshape(2, 2, 5) - 15
    assert torch.equal(paper.highest(maps, 0.3) != 0, maps >= maps.flatten(1).sort(1).values[:, 7, None, None])
    assert torch.equal(paper.highest(maps, 1.0), maps)
    equal = torch.tensor([[[3.0, 1.0, 1.0, 1.0, 0.0]]])
    assert paper.highest(equal, 0.4).tolist() == [[[3.0, 1.0, 1.0, 1.0, 0.0]]]
    assert paper.highest(equal, 0.2).tolist() == [[[3.0, 0.0, 0.0, 0.0, 0.0]]]


def test_variants_are_lrp_bn_with_one_thing_changed(tiny):
    model = tiny[0]
    found = paper.variants(model, 0.3, SEED)
    assert list(found)[:3] == ["LIME", "Kernel SHAP", "Integrated gradients"]
    assert len(found) == 13
    changed = {name: e for name, e in found.items() if isinstance(e, LRPBN)}
    assert len(changed) == 10
    assert {name: e.rules.skip for name, e in changed.items() if e.rules.skip != 0.3} == {
        "skip |main| : |skip|": "magnitude",
        "skip none": "none",
    }
    assert {name for name, e in changed.items() if not e.multiply} == {"without α′"}
    assert {name: e.branches for name, e in changed.items() if e.branches != "both"} == {
        "$R_{AB}$ alone": "attention",
        "$R_{PB}$ alone": "perception",
    }
    assert {name for name, e in changed.items() if e.seeds != "own"} == {"both from PB"}
    assert {name for name, e in changed.items() if e.model is not model} == {"gate open", "θ = 0.5", "θ = 0.8"}
    assert {name: e.choose.keywords for name, e in changed.items() if e.choose.keywords} == {
        "two components": {"keep": 2}
    }


def test_open_choices_change_the_first_layer_of_both_methods_or_the_cells_of_c1c():
    scale = paper.Scale((0.4,), (0.2,))
    plain, model = (
        paper.network(kind, depth=18, n_classes=2, width=4, channels=1, seed=SEED).eval() for kind in ("resnet", "abn")
    )
    found = paper.open_choices(model, plain, 0.3, scale)
    assert list(found) == ["z^B in the first layer", "ones in the first layer", "14 cells of C1C", "56 cells of C1C"]
    x = paper.scaled(torch.rand(2, 1, 32, 32, generator=generator(SEED)).round(decimals=1), scale)
    for choice, box in zip(found, ((-2.0, 3.0), "ones", None, None)):
        plainly = lrp.LRP(plain, skip="none", start="probability", box=box)
        torch.testing.assert_close(found[choice]["LRP"].attribute(x, 1), plainly.attribute(x, 1))
        options = {"c1c": {"size": int(choice[:2])}} if box is None else {"box": box}
        expected = LRPBN(model, skip=0.3, **options).attribute(x, 1)
        torch.testing.assert_close(found[choice]["LRP-BN"].attribute(x, 1), expected)


@pytest.mark.parametrize(
    ("kind", "depth", "options", "name"),
    [
        ("resnet", 18, {}, "layer4"),
        ("abn", 18, {}, "perception.block8"),
        ("abn", 18, {"blocks": 7}, "perception.block8"),
        ("abn", 34, {"blocks": 2}, "perception.block16"),
        ("abn", 50, {}, "perception.block16"),
    ],
)
def test_last_block_is_what_the_pooling_gets(kind, depth, options, name):
    model = paper.network(kind, depth, 2, 1, 1, SEED, **options).eval()
    assert paper.last_block(model) == name
    seen = {}
    pooling = model.avgpool if kind == "resnet" else model.perception.avgpool
    model.get_submodule(name).register_forward_hook(lambda module, args, output: seen.update(block=output))
    pooling.register_forward_hook(lambda module, args, output: seen.update(pooled=args[0]))
    with torch.no_grad():
        model(noise(1, 1, 32, 32))
    assert seen["block"] is seen["pooled"]


METHODS = ("RISE", "Grad-CAM", "LRP", "ABN", "LRP-BN")


def test_keys_of_maps_are_the_metrics_of_the_papers_tables():
    reported = claims.load().papers["05_lrp_bn"].reported("P5.1")
    for name in METHODS:
        assert any(value.id == f"P5.1.{paper.metric_key(name)}.id_score" for value in reported), name
    assert paper.metric_key("$R_{AB}$ alone") == "r_ab_alone"
    assert paper.metric_key("θ = 0.5") == "theta_0_5"
    assert paper.metric_key("α′ alone") == "alone"


def test_tables_hold_the_papers_numbers_beside_ours():
    ours = {"P5.1.lrp_bn.iou": [0.25, 0.2, 0.304], "P5.1.gradcam.insertion": [None, None, None]}
    found = paper.tables(pd.DataFrame.from_dict(ours, orient="index", columns=["value", "low", "high"]))
    assert list(found.index) == list(METHODS)
    assert list(found["insertion"]) == ["paper", "ours"]
    assert found.loc["LRP-BN", "iou"].to_dict() == {"paper": "0.184 ± 0.004", "ours": "0.25 [0.20, 0.30]"}
    assert found.loc["Grad-CAM", "insertion"].to_dict() == {"paper": "0.635 ± 0.026", "ours": "—"}
    assert found.loc["LRP", "accuracy"]["paper"] == "0.958 ± 0.004"
    assert (found.xs("ours", axis=1, level=1) != "—").to_numpy().sum() == 1


@pytest.fixture
def dark_line():
    """A scaled picture (1, 1, 12, 12), 0 but for an upright line of -3 in column 5, not at the border."""
    picture = torch.zeros(1, 1, 12, 12)
    picture[:, :, 2:10, 5] = -3
    return picture


def test_the_tiny_network_finds_a_dark_line_and_its_direction(dark_line):
    tiny = paper.tiny_abn()
    lines = tiny.extractor[0](dark_line)[0]
    assert lines[:, 5, 5].tolist() == pytest.approx([0, 3, 0, 0], abs=1e-6)
    joined = tiny.attention.reduce(tiny.extractor(dark_line))[0, 0]
    assert joined[2:10].argmax(1).tolist() == [5] * 8
    found = tiny.branches(dark_line)
    torch.testing.assert_close(found.attention[0, 0], torch.sigmoid(2 * joined - 3))
    assert found.attention_logits[0, 0].item() == pytest.approx(-found.attention_logits[0, 1].item(), abs=1e-6)
    assert found.attention_logits[0, 1].item() == pytest.approx((4 * joined - 2).mean().item(), abs=1e-5)
    h = tiny.extractor(dark_line)
    assert found.logits[0, 1].item() == pytest.approx(10 * (found.attention * h).sum(1).mean().item() - 1, abs=1e-5)
    assert not any(parameter.requires_grad for parameter in tiny.parameters())


def test_the_tiny_block_adds_what_the_neighbours_support():
    block = paper.tiny_abn().extractor[2]
    x = torch.zeros(1, 4, 7, 7)
    x[0, 2, 3, 3] = 8.0  # a lonely response: its neighbours get an eighth of it, itself nothing
    expected = torch.zeros(4, 7, 7)
    expected[2, 2:5, 2:5] = 1.0
    expected[2, 3, 3] = 8.0
    torch.testing.assert_close(block(x)[0], expected, atol=1e-4, rtol=0)


def test_the_tiny_network_takes_colours_and_leaves_the_random_state(dark_line):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    grey, colours = paper.tiny_abn(), paper.tiny_abn(3)
    assert torch.equal(torch.get_rng_state(), before)
    picture = dark_line.expand(-1, 3, -1, -1)
    torch.testing.assert_close(colours(picture), grey(dark_line))
    relevance = LRPBN(colours, multiply=False, c1c=False).attribute(picture, 1)
    torch.testing.assert_close(relevance, LRPBN(grey, multiply=False, c1c=False).attribute(dark_line, 1))
    assert relevance[0].argmax().item() % 12 == 5


def test_number_grids_print_every_number():
    fig = paper.number_grids({"one": torch.tensor([[1.0, -0.25]]), "none": torch.zeros(2, 1)}, "numbers")
    assert [[text.get_text() for text in ax.texts] for ax in fig.axes] == [["1", "-0.25"], ["0", "0"]]
    assert fig.axes[0].images[0].get_array().tolist() == [[1.0, -0.25]]
    assert [ax.get_title() for ax in fig.axes] == ["one", "none"]


def test_order_curves_draw_each_order_and_name_its_area():
    def made(k):
        curve = torch.tensor([[0.0, k, 1.0]])
        area = torch.tensor([0.3 * k])
        return faithfulness.Faithfulness(torch.tensor([0, 0.5, 1]), curve, 1 - curve, area, 1 - area, area, area)

    fig = paper.order_curves({"a map": {"reading": made(0.5), "together": made(1.0)}})
    left, right = fig.axes
    assert [line.get_ydata().tolist() for line in left.lines] == [[0, 0.5, 1], [0, 1, 1]]
    assert [line.get_ydata().tolist() for line in right.lines] == [[1, 0.5, 0], [1, 0, 0]]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["reading 0.15", "together 0.30"]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["reading 0.85", "together 0.70"]
    assert (left.get_xlabel(), right.get_xlabel()) == ("share of the pixels inserted", "share of the pixels deleted")


@pytest.fixture
def scored():
    rng = np.random.default_rng(2)
    values = {name: np.round(rng.random(14), 2) for name in (*METHODS, "random")}
    values["LRP-BN"] = values["LRP-BN"] + 0.4
    values["ABN"] = values["LRP-BN"] - 0.1 - rng.random(14) / 10
    return values, np.repeat(list("abcdefg"), 2)


def long(values, column, **more):
    rows = [(name, i, number) for name, numbers in values.items() for i, number in enumerate(numbers)]
    return pd.DataFrame(rows, columns=["map", "image", column]).assign(**more)


@pytest.fixture
def concluded(scored):
    """Two tables of scores: LRP-BN inserts better than all others, and lies worse; the ID score is mixed."""
    values, clusters = scored
    rng = np.random.default_rng(4)
    insertion = {name: rng.random(14) + (name == "LRP-BN") for name in METHODS}
    score = values | {"$R\\odot\\alpha'$": values["LRP-BN"] + rng.normal(0, 1, 14), "true mask": rng.random(14)}
    score["dilated mask"] = score["true mask"] - 0.2 - rng.random(14) / 9
    scores = long(insertion | {name: np.zeros(14) for name in score if name not in insertion}, "insertion", c1c=False)
    scores = scores.merge(long(score, "id_score"), on=["map", "image"])
    other = scores.assign(c1c=True, insertion=-9.0, id_score=np.arange(len(scores)))  # not to be taken
    lies = long({name: rng.random(14) - (name == "LRP-BN") for name in METHODS}, "iou")
    return pd.concat([scores, other]), lies, clusters, score


def test_conclusions_by_one_difference_at_a_time(concluded):
    scores, lies, clusters, score = concluded
    found = paper.conclusions(scores, lies, clusters, 3)
    rivals = METHODS[:4]
    assert list(found.index) == [
        *(f"{column}: LRP-BN above {name}" for column in ("insertion", "id_score", "iou") for name in rivals),
        "id_score: C1C raises it (LRP-BN above R ⊙ α′)",
        "id_score: dilated mask above the true one",  # no blurred mask: left out
    ]
    assert (found.loc[[f"insertion: LRP-BN above {name}" for name in rivals], "holds"] == "yes").all()
    assert (found.loc[[f"iou: LRP-BN above {name}" for name in rivals], "holds"] == "no").all()
    pairs = {f"id_score: LRP-BN above {name}": ("LRP-BN", name) for name in rivals}
    pairs["id_score: C1C raises it (LRP-BN above R ⊙ α′)"] = ("LRP-BN", "$R\\odot\\alpha'$")
    pairs["id_score: dilated mask above the true one"] = ("dilated mask", "true mask")
    for conclusion, (one, two) in pairs.items():
        expected = estimates.mean(score[one] - score[two], clusters, 3)
        numbers = [expected.value, expected.low, expected.high]
        assert found.loc[conclusion, ["difference", "low", "high"]].tolist() == pytest.approx(numbers)
        sign = "yes" if expected.low > 0 else "no" if expected.high < 0 else "open"
        assert found.loc[conclusion, "holds"] == sign
    assert found.loc["id_score: dilated mask above the true one", "holds"] == "no"
    assert found.loc["id_score: C1C raises it (LRP-BN above R ⊙ α′)", "holds"] == "open"


def test_conclusions_without_masks_and_of_one_segment(concluded):
    scores, _, _, _ = concluded
    found = paper.conclusions(scores, None, np.array(["a"] * 14), 0)
    assert not any(name.startswith("iou") for name in found.index)
    assert found[["difference", "low", "high"]].isna().all(axis=None)
    assert set(found["holds"]) == {"open"}


def test_agreement_counts_a_yes_or_no_of_both():
    here = pd.DataFrame({"holds": {"a": "yes", "b": "no", "c": "open", "d": "yes", "only here": "yes"}})
    there = pd.DataFrame({"holds": {"only there": "no", "d": "no", "c": "open", "b": "no", "a": "yes"}})
    assert paper.agreement(here, there) == Estimate(0.5, 4)
    assert paper.agreement(here, there.iloc[:1]) == Estimate(None, 0, note="no conclusion in both sets")


def test_border_contrast_by_loops():
    images, masks = noise(3, 2, 30, 20), torch.zeros(3, 30, 20, dtype=torch.bool)
    masks[0, 10, 3:15] = True
    masks[1, 0:3, 0:2] = True
    masks[2, 12:29:5, 19] = True
    images[0, :, 10] *= 0.2
    reach = 2  # 30 / 14
    found = paper.border_contrast(images, masks)
    for image in range(3):
        crack = [(i, j) for i in range(30) for j in range(20) if masks[image, i, j]]
        around = [
            (i, j)
            for i, j in itertools.product(range(30), range(20))
            if (i, j) not in crack and any(abs(i - k) <= reach and abs(j - m) <= reach for k, m in crack)
        ]
        grey = images[image].double().mean(0).numpy()
        on, off = [grey[place] for place in crack], [grey[place] for place in around]
        assert found[image] == pytest.approx(abs(np.mean(on) - np.mean(off)) / np.std(off), rel=1e-5)
    assert found.shape == (3,)
    np.testing.assert_allclose(paper.border_contrast(1 - images, masks), found, rtol=1e-4)  # darker or brighter


def test_border_contrast_of_flat_surroundings_counts_grey_levels_and_is_0_of_nothing():
    images, masks = torch.full((4, 1, 14, 14), 0.5), torch.zeros(4, 14, 14, dtype=torch.bool)
    masks[:, 7, 4:9] = True
    images[0][:, masks[0]] = 0.0
    images[2] = noise(1, 14, 14) / 1000 + 0.5  # a deviation of a quarter of a grey level
    images[2][:, masks[2]] = 0.6
    masks[3] = True  # nothing around it
    found = paper.border_contrast(images, masks)
    np.testing.assert_allclose(found, [0.5 * 255, 0, 0.0995 * 255, 0], rtol=1e-2, atol=1e-6)


# conservation ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    """A tiny network with BatchNorm as after training, an explainer without α′ and C1C, images and labels."""
    torch.manual_seed(1)
    model = as_trained(AttentionBranchNetwork(18, 2, 2, 1).double())
    return model, noise(3, 1, 24, 24, seed=3, dtype=torch.float64) * 4 - 2, torch.tensor([0, 1, 1])


def explainer_of(model, **options):
    return LRPBN(model, multiply=False, c1c=False, **options)


def started(model, image, label):
    """p(ŷ_AB) + p(ŷ_PB) of the label: what both walks start with."""
    with torch.no_grad():
        found = model.branches(image)
    return sum(logits.softmax(1)[0, label].item() for logits in (found.attention_logits, found.logits))


def slowly_conserved(model, images, labels):
    """Shares lost per image, by names and types of the network's modules."""
    explainer, rows = explainer_of(model), []
    for image, label in zip(images, labels):
        explainer.attribute(image[None], label[None])
        lost = {"branch": 0.0, "skip": 0.0, "other": 0.0}
        for row in explainer.ledger.to_dict("records")[:-1]:
            module = model.get_submodule(row["layer"])
            if isinstance(module, Gate) or any(module is other for other in model.attention.modules()):
                place = "branch"
            elif row["layer"].endswith(".add") or ".downsample." in row["layer"]:
                place = "skip"
            else:
                place = "other"
            lost[place] += abs(row["absorbed"]) / started(model, image[None], label)
        rows.append((lost, explainer.ledger))
    return rows


def test_conservation_is_the_ledger_image_by_image(tiny):
    model, images, labels = tiny
    found = paper.conservation(explainer_of(model), images, labels)
    assert list(found) == ["branch", "skip", "other"]
    for i, (expected, ledger) in enumerate(slowly_conserved(model, images, labels)):
        assert {place: found[place][i] for place in found} == pytest.approx(expected, abs=1e-12)
        total = started(model, images[[i]], labels[i])
        assert ledger["relevance_out"].iloc[-1] == pytest.approx(total)
        everywhere = ledger["absorbed"].iloc[:-1].abs().sum() / total
        assert sum(found[place][i] for place in found) == pytest.approx(everywhere)
        assert everywhere == pytest.approx(1 - ledger["relevance_in"].iloc[-1] / total)  # z⁺: all of one sign
    assert min(values.max() for values in found.values()) > 0
    assert all(values.shape == (3,) for values in found.values())


def test_what_gate_and_skip_absorb_is_counted_as_theirs(tiny, monkeypatch):
    model, images, labels = tiny
    whole = lrp.Rules.__call__

    def leaking(self, step, relevance):  # gates keep a quarter, sums a tenth
        parts, absorbed = whole(self, step, relevance)
        share = {"Gate": 0.25, "Add": 0.1}.get(type(step.module).__name__, 0.0)
        if share:
            parts = [None if part is None else part * (1 - share) for part in parts]
            absorbed = share * relevance.sum((1, 2, 3))
        return parts, absorbed

    monkeypatch.setattr(lrp.Rules, "__call__", leaking)
    found = paper.conservation(explainer_of(model), images, labels)
    for i, (expected, ledger) in enumerate(slowly_conserved(model, images, labels)):
        assert {place: found[place][i] for place in found} == pytest.approx(expected, abs=1e-12)
        total = started(model, images[[i]], labels[i])
        of_gate = ledger[ledger["module"] == "Gate"]["relevance_out"].iloc[0] / 4
        of_sums = ledger[ledger["layer"].str.match("(extractor|perception).*add$")]["relevance_out"].sum() / 10
        assert found["branch"][i] > of_gate / total > 0.01
        assert found["skip"][i] >= of_sums / total > 0.01


def test_conservation_of_negative_starts_is_of_their_magnitude(tiny):
    model, images, _ = tiny
    with torch.no_grad():
        found = model.branches(images[:1])
    logits = found.logits + found.attention_logits
    target = logits.argmin(1)
    assert logits[0, target] < 0
    lost = paper.conservation(explainer_of(model, start="logit"), images[:1], target)
    assert all(values >= 0 for values in lost.values())
    assert sum(lost.values()) > 0


def test_conservation_of_a_rule_that_loses_relevance_raises(tiny, monkeypatch):
    model, images, labels = tiny
    monkeypatch.setattr(lrp.Rules, "add", lambda self, step, relevance: ((0.5 * relevance, 0.4 * relevance), None))
    with pytest.raises(ArithmeticError, match=r"relevance is not conserved at module 'perception.block8.add' \(Add\)"):
        paper.conservation(explainer_of(model), images, labels)


def test_component_on_crack_by_hand():
    maps, masks = torch.zeros(5, 8, 8), torch.zeros(5, 8, 8, dtype=torch.bool)
    maps[:, 0:2, 0:4] = 2.0  # in cells of 2 × 2 pixels: the cells (0, 0) and (0, 1)
    maps[:, 2:4, 4:6] = 1.0  # their diagonal neighbour (1, 2)
    maps[:, 6:8, 0:2] = 1.5  # apart
    maps[2, 6:8, 0:2] = 3.0  # apart, and the highest
    maps[3] = -1.0
    masks[0, 1, 1] = True  # one pixel of (0, 0): (1, 2) is farther than a cell
    masks[0, 6:8, 0:2] = True
    masks[1, 2:4, 2] = True  # (1, 1): all three are its neighbours
    masks[2, 5, 3] = True  # (2, 1), diagonal to the one that is kept
    masks[3] = True
    masks[4, 7, 7] = True  # far away
    found = paper.component_on_crack(maps, masks, size=4)
    np.testing.assert_allclose(found, [2 / 3, 1, 1, math.nan, 0])
    assert found.dtype == np.float64


def test_component_on_crack_takes_cells_of_28_by_default():
    maps, masks = torch.zeros(1, 56, 56), torch.zeros(1, 56, 56, dtype=torch.bool)
    maps[0, 10:12, 10:30] = 1.0  # ten cells, 5 to 14
    masks[0, 11, 24:40] = True  # cells 12 to 19, and 11 beside them
    np.testing.assert_allclose(paper.component_on_crack(maps, masks), [0.4])
