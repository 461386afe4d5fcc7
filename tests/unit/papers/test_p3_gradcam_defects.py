"""Paper 3's steps: the light taken out, the training's input, weights from a file, and what maps say of errors."""

import dataclasses
import functools
import itertools
import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from checks import augmented_from_its_generator_alone

from xai_utils.data.imageset import ImageSet
from xai_utils.data.sets import surface_defects
from xai_utils.explain import GradCAM, upsample
from xai_utils.metrics import consistency, localization
from xai_utils.metrics.statistics import Estimate
from xai_utils.models import resnet18
from xai_utils.papers import p3_gradcam_defects as paper
from xai_utils.papers import shared
from xai_utils.papers.shared import Explained
from xai_utils.seeds import generator
from xai_utils.suite import parameters

SEED = 0
CLASSES = ("crack", "scratch", "dirt")


def image_set(labels, pixels=None, groups=None, split=None, class_names=CLASSES):
    n = len(labels)
    if pixels is None:
        pixels = torch.rand(n, 1, 4, 4, generator=generator(3, "pixels"))
    return ImageSet(
        name="made",
        pixels=pixels,
        labels=torch.tensor(labels, dtype=torch.int64),
        split=np.array(["train"] * n if split is None else split),
        ids=np.array([f"image {i}" for i in range(n)]),
        class_names=class_names,
        provenance={"name": "made", "sha256": "", "variant": "own"},
        masks=pixels[:, 0] > 0.5,
        groups=None if groups is None else np.array(groups),
    )


# before and during training -------------------------------------------------------------------------------------


def test_normal_classes_by_name():
    assert paper.normal_classes("dirt, scratch", CLASSES) == [1, 2]
    assert paper.normal_classes("dirt,dirt,", CLASSES) == [2]
    assert paper.normal_classes(" ", CLASSES) == []
    default = parameters.defaults(parameters.schema("03_gradcam_defects"))["normal"]
    assert paper.normal_classes(default, surface_defects.CLASSES) == sorted(
        surface_defects.CLASSES.index(name) for name in default.split(", ")
    )
    assert paper.normal_classes(default, ("crack", "Good", "dent", "no_defect")) == [1, 3]  # what is called so
    assert paper.normal_classes(default, CLASSES) == []
    with pytest.raises(
        ValueError, match="normal: 'fine' is no class of the data; expected some of crack, scratch, dir"
    ):
        paper.normal_classes("dirt, fine", CLASSES)
    with pytest.raises(ValueError, match=r"all classes \(crack, scratch, dirt\) are normal; expected one with defects"):
        paper.normal_classes("dirt, scratch, crack", CLASSES)


def mirrored(i, n):
    i %= 2 * n
    return i if i < n else 2 * n - 1 - i


def gaussian_mean(values, row, column, deviations):
    """Gaussian-weighted mean around one pixel, the image mirrored at its edges, up to three deviations away."""
    total = weights = 0.0
    reach = [int(3 * deviation + 0.5) for deviation in deviations]
    for i in range(-reach[0], reach[0] + 1):
        for j in range(-reach[1], reach[1] + 1):
            weight = math.exp(-((i / deviations[0]) ** 2 + (j / deviations[1]) ** 2) / 2)
            total += weight * values[mirrored(row + i, len(values))][mirrored(column + j, len(values[0]))]
            weights += weight
    return total / weights


def slowly_even(values, width):
    """The light taken out of one channel (H, W), before it is cut to [0, 1]."""
    height, across = len(values), len(values[0])
    deviations = (width * height, width * across)
    places = list(itertools.product(range(height), range(across)))
    means = np.array([gaussian_mean(values, i, j, deviations) for i, j in places]).reshape(height, across)
    difference = np.array(values) - means
    around = [gaussian_mean((difference**2).tolist(), i, j, deviations) for i, j in places]
    spread = np.sqrt(around).reshape(height, across)
    return 0.15 * difference / (spread + difference.std() / 2) + 0.5


@pytest.mark.parametrize("width", [1 / 12, 0.2])
def test_even_light_by_sums_around_every_pixel(width):
    pixels = torch.rand(1, 2, 12, 18, generator=generator(1)) * 0.8
    pixels[0, 0, 3, 4] = 1.0
    pixels[0, 0, 4:9, 8:12] = 0.1
    options = {} if width == 1 / 12 else {"width": width}
    found = paper.even_light(image_set([0], pixels), **options).images
    assert found.dtype == torch.float32
    for channel in range(2):
        expected = slowly_even(pixels[0, channel].tolist(), width)
        np.testing.assert_allclose(found[0, channel].numpy(), expected.clip(0, 1), atol=2e-6)


def test_even_light_takes_a_slope_out_and_cuts_what_leaves_the_range():
    ramp = torch.linspace(0, 0.5, 48).expand(48, 48)
    grain = torch.rand(48, 48, generator=generator(2)) * 0.05
    light, flat = (paper.even_light(image_set([0], (x + grain)[None, None])).images for x in (ramp, 0 * ramp))
    middle = (slice(None), slice(None), slice(12, -12), slice(12, -12))
    assert np.corrcoef(light[middle].flatten(), flat[middle].flatten())[0, 1] > 0.95
    spot = torch.full((1, 1, 48, 48), 0.5)
    spot[..., 20, 20], spot[..., 30, 30] = 1, 0
    found = paper.even_light(image_set([0], spot)).images
    assert (found[0, 0, 20, 20], found[0, 0, 30, 30]) == (1, 0)


def test_even_light_leaves_flat_images_at_one_half_and_everything_else_alone():
    flat = torch.tensor([0.0, 0.3, 0.7, 1.0])[:, None, None, None].expand(4, 1, 9, 9).contiguous()
    assert torch.equal(paper.even_light(image_set([0] * 4, flat)).images, torch.full((4, 1, 9, 9), 0.5))
    pixels = torch.rand(3, 2, 10, 8, generator=generator(4))
    images = image_set([0, 2, 1], pixels.clone(), groups=["a", "b", "b"], split=["train", "val", "test"])
    found = paper.even_light(images)
    assert torch.equal(images.images, pixels)
    for name in ("name", "labels", "split", "ids", "class_names", "provenance", "masks", "groups"):
        assert getattr(found, name) is getattr(images, name)
    for i in range(3):
        alone = paper.even_light(images.take(np.array([i]))).images
        assert torch.equal(alone[0], found.images[i])
    for channel in (0, 1):
        alone = paper.even_light(image_set([0] * 3, pixels[:, [channel]])).images
        torch.testing.assert_close(alone[:, 0], found.images[:, channel], atol=1e-6, rtol=0)


def test_balanced_repeats_in_order_and_trims():
    images = image_set([2, 0, 2, 0, 2, 2, 2])
    numbers = [int(name.split()[1]) for name in paper.balanced(images).ids]
    assert numbers == [1, 3, 1, 3, 1, 0, 2, 4, 5, 6]  # class 1 has no image and gets none
    trimmed = paper.balanced(images, 3)
    assert trimmed.ids.tolist() == [f"image {i}" for i in (1, 3, 1, 0, 2, 4)]
    assert trimmed.labels.tolist() == [0, 0, 0, 2, 2, 2]
    assert torch.equal(trimmed.images, images.images[[1, 3, 1, 0, 2, 4]])


@pytest.fixture
def drawn(monkeypatch):
    """Let `torch.rand` return given numbers: two flips, the shifts, and contrast and light; 0.5 changes nothing."""

    def replace(up=0.5, across=0.5, shifts=(0.5, 0.5), contrast=0.5, light=0.5):
        answers = iter([[up], [across], [list(shifts)], [[[[[contrast]]]], [[[[light]]]]]])
        monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.tensor(next(answers)).reshape(shape))

    return replace


def test_augment_flips_and_shifts_without_interpolation(drawn):
    image = (torch.arange(2 * 10 * 20) / 400).reshape(1, 2, 10, 20)
    batch = (image, torch.tensor([1]))
    drawn()
    torch.testing.assert_close(paper.augment(batch, None)[0], image)
    for axis, name in ((2, "up"), (3, "across")):
        drawn(**{name: 0.49})
        torch.testing.assert_close(paper.augment(batch, None)[0], image.flip(axis))
    drawn(shifts=(1.0, 0.0))  # +12 % of 10 rows is 1, −12 % of 20 columns is −2
    found, expected = paper.augment(batch, None)[0], torch.full_like(image, image.mean().item())
    expected[:, :, :9, 2:] = image[:, :, 1:, :18]
    torch.testing.assert_close(found, expected)


def test_augment_changes_contrast_about_the_mean_and_light_and_cuts(drawn):
    image = torch.tensor([[0.5, 0.6], [0.1, 0.9]])[None, None]
    mean = image.mean()
    for contrast, light in ((1.0, 0.5), (0.0, 0.5), (0.5, 1.0), (0.5, 0.0), (0.75, 0.25)):
        drawn(contrast=contrast, light=light)
        expected = (image - mean) * math.exp(0.4 * (2 * contrast - 1)) + mean + 0.1 * (2 * light - 1)
        found = paper.augment((image, torch.tensor([0])), None)[0]
        torch.testing.assert_close(found, expected.clamp(0, 1))
    drawn(contrast=1.0, light=1.0)
    found = paper.augment((image, torch.tensor([0])), None)[0]
    assert found.max() == 1


def test_augment_draws_from_its_generator_alone_and_keeps_labels_and_range():
    images, labels = torch.rand(64, 1, 12, 12, generator=generator(5)).round(), torch.arange(64)
    found = augmented_from_its_generator_alone(paper.augment, images, labels)
    assert (found.min(), found.max()) == (0, 1)


def test_network_depends_on_its_seed_alone():
    torch.manual_seed(11)
    one = paper.network(3, 2, 1, 7)
    torch.manual_seed(12)
    again, other = paper.network(3, 2, 1, 7), paper.network(3, 2, 1, 8)
    for (name, a), b, c in zip(one.state_dict().items(), again.state_dict().values(), other.state_dict().values()):
        assert torch.equal(a, b), name
        assert not name.endswith(("conv1.weight", "conv2.weight", "fc.weight")) or not torch.equal(a, c), name
    assert one.training
    assert one(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    assert one.conv1.out_channels == 2


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_a_narrow_network_trains(width):  # below 8 channels, channels_last ended the process
    model = paper.network(3, width, 1, SEED)
    pixels = torch.rand(6, 1, 32, 32, generator=generator(3, "pixels"))
    shared.cross_entropy(model, (pixels, torch.arange(6) % 3), generator(0))["loss"].backward()
    assert all(weight.grad.isfinite().all() and weight.grad.any() for weight in model.parameters())
    deep = model.layer4[0].conv1.weight
    assert deep.is_contiguous(memory_format=torch.channels_last) == (width >= 8)


def with_margins(labels, margins, channels=1, seed=1):
    """Noise, with `margins` rows of one grey value at the bottom."""
    pixels = torch.rand(len(labels), channels, 16, 16, generator=generator(seed)) * 0.9
    for image, rows in zip(pixels, margins):
        image[:, 16 - rows :] = 0.95
    return pixels


def test_references_guess_by_the_margin_and_by_the_majority():
    labels = [0, 1, 0] * 30
    split = ["train"] * 60 + ["test"] * 30
    told = paper.references(image_set(labels, with_margins(labels, [3 + 6 * k for k in labels]), split=split), SEED)
    assert told["shape"].all()
    assert told["majority"].tolist() == [label == 0 for label in labels[60:]]
    labels = [0, 1] * 45
    margins = [3, 3, 9, 9] * 23
    untold = paper.references(image_set(labels, with_margins(labels, margins), split=split), SEED)
    assert 0.2 < untold["shape"].mean() < 0.8
    again = paper.references(image_set(labels, with_margins(labels, margins), split=split), SEED)
    assert np.array_equal(untold["shape"], again["shape"])


def test_references_learn_from_the_training_images_only():
    labels = [1] * 20 + [0] * 30 + [0] * 10
    split = ["train"] * 20 + ["test"] * 30 + ["train"] * 10
    told = paper.references(image_set(labels, with_margins(labels, [4] * 60), split=split), SEED)
    assert not told["majority"].any()
    assert told["majority"].shape == told["shape"].shape == (30,)


def test_shared_groups_are_those_of_two_splits():
    split = ["train", "train", "val", "test", "test", "val"]
    assert paper.shared_groups(image_set([0] * 6, groups=["a", "b", "b", "c", "a", "d"], split=split)) == {"a", "b"}
    assert paper.shared_groups(image_set([0] * 6, groups=["a", "a", "b", "c", "c", "b"], split=split)) == set()
    assert paper.shared_groups(image_set([0] * 6, split=split)) == set()


# five networks --------------------------------------------------------------------------------------------------


def of_tiles(n=240, tiles=60, seed=7):
    """Images of tiles of one class each, in no order."""
    tile = np.random.default_rng(seed).integers(0, tiles, n)
    split = np.where(np.arange(n) % 3 == 0, "test", "train")  # of no concern for the folds
    return image_set((tile % 3).tolist(), groups=[f"tile {t}" for t in tile], split=split)


def test_folds_test_each_image_once_and_no_tile_is_on_two_sides():
    images = of_tiles()
    found = paper.folds(images, 5, SEED)
    assert len(found) == 5
    tested = [[name for name, part in zip(one.ids, one.split) if part == "test"] for one in found]
    assert sorted(itertools.chain.from_iterable(tested)) == sorted(images.ids)
    for one in found:
        assert torch.equal(one.pixels, images.pixels)
        assert one.ids.tolist() == images.ids.tolist()
        tiles = {part: {g for g, p in zip(one.groups, one.split) if p == part} for part in ("train", "val", "test")}
        assert all(tiles.values())
        for a, b in itertools.combinations(tiles.values(), 2):
            assert not a & b
        rest = len(images) - (one.split == "test").sum()
        assert (one.split == "val").sum() / rest == pytest.approx(1 / 9, abs=0.05)
        for label in range(3):  # stratified: a fifth of each class is tested
            mine = one.labels.numpy() == label
            assert (mine & (one.split == "test")).sum() / mine.sum() == pytest.approx(1 / 5, abs=0.08)
            assert (mine & (one.split == "val")).any()
    assert set(images.split) == {"train", "test"}  # the images given are as they were


def test_folds_follow_from_the_seed_and_take_images_without_groups():
    images = of_tiles()
    again, other = paper.folds(images, 5, SEED), paper.folds(images, 5, SEED + 1)
    assert all((a.split == b.split).all() for a, b in zip(paper.folds(images, 5, SEED), again))
    assert any((a.split != b.split).any() for a, b in zip(again, other))
    alone = paper.folds(image_set([0, 1, 2] * 20), 3, SEED)
    assert sorted(itertools.chain.from_iterable(one.subset("test").ids for one in alone)) == sorted(alone[0].ids)
    assert all(18 <= (one.split == "test").sum() <= 22 for one in alone)
    few = paper.folds(image_set([0, 1] * 6, groups=list("aabbccddeeff")), 3, SEED)  # fewer groups than HELD_BACK
    assert all({"train", "val", "test"} == set(one.split) for one in few)


def test_judged_images_and_their_networks():
    images = image_set([0, 1, 2, 0, 1, 2])
    split = [["test", "val", "train", "train", "test", "train"], ["train", "test", "val", "train", "train", "train"]]
    divided = [image_set([0, 1, 2, 0, 1, 2], images.pixels, split=one) for one in split]
    test, fold = paper.judged(divided)
    assert test.ids.tolist() == ["image 0", "image 1", "image 4"]
    assert fold.tolist() == [0, 1, 0]
    assert torch.equal(test.pixels, images.pixels[[0, 1, 4]])
    test, fold = paper.judged(divided[:1])
    assert test.ids.tolist() == divided[0].subset("test").ids.tolist() == ["image 0", "image 4"]
    assert fold.tolist() == [0, 0]


def test_by_fold_asks_each_images_own_network():
    fold = np.array([2, 0, 2, 1, 0])
    asked = []

    def function(network, rows):
        asked.append(rows.tolist())
        return torch.stack([torch.tensor([100.0 * network, row]) for row in rows])

    found = paper.by_fold([7, 8, 9], fold, function)
    assert found.tolist() == [[900, 0], [700, 1], [900, 2], [800, 3], [700, 4]]
    assert asked == [[1, 4], [3], [0, 2]]
    assert paper.by_fold([7, 8, 9], np.array([2, 2]), function).tolist() == [[900, 0], [900, 1]]  # none for 7 and 8
    values = torch.rand(5, 3, generator=generator(20))
    alone = paper.by_fold([None], np.zeros(5, dtype=int), lambda _, rows: values[rows])
    assert torch.equal(alone, values)


def three_networks(width=2):
    return [paper.network(3, width, 1, seed).eval() for seed in range(3)]


def test_maps_by_fold_one_by_one():
    networks, fold = three_networks(), np.array([1, 0, 2, 1, 1])
    images, classes = torch.rand(5, 1, 32, 32, generator=generator(21)), torch.tensor([0, 1, 2, 2, 1])
    kind = functools.partial(GradCAM, layer="layer2")
    found = paper.maps_by_fold(networks, kind, images, classes, fold)
    for i in range(5):
        expected = GradCAM(networks[fold[i]], "layer2").attribute(images[i : i + 1], int(classes[i]))
        torch.testing.assert_close(found[i], expected[0], atol=1e-6, rtol=1e-4)
    assert found.sum() > 0


def test_copies_start_alike_and_go_their_own_way():
    model = small()
    one, two, three = paper.copies(model, 3)
    assert one is model
    assert equal_states(state_of(one), state_of(two))
    with torch.no_grad():
        two.fc.bias += 1
    assert equal_states(state_of(one), state_of(three))
    assert not equal_states(state_of(one), state_of(two))
    assert paper.copies(model, 1) == [model]


def divided_images(count=3):
    """Noisy images of tiles, with `count` splits; large enough for a network."""
    tile = np.arange(36) // 3
    pixels = torch.rand(36, 1, 32, 32, generator=generator(22))
    images = image_set((tile % 3).tolist(), pixels, groups=[f"tile {t}" for t in tile])
    return paper.folds(images, count, SEED)


def test_validated_one_by_one():
    networks, divided = three_networks(), divided_images()
    right, labels, groups = paper.validated(networks, divided)
    expected = []
    for network, images in zip(networks, divided):
        for i in np.flatnonzero(images.split == "val"):
            said = int(network(images.images[[i]]).argmax())
            expected.append((said == images.labels[i].item(), images.labels[i].item(), images.groups[i]))
    assert list(zip(right.tolist(), labels.tolist(), groups.tolist())) == expected
    assert 0 < right.sum() < len(right)
    without = [dataclasses.replace(images, groups=None) for images in divided]
    assert paper.validated(networks, without)[2] is None
    assert paper.validated(networks, without)[0].tolist() == right.tolist()


def test_references_by_fold_are_those_of_the_fold_that_tests_an_image():
    labels, margins = [0, 1, 0] * 24, [3, 9, 3] * 24
    images = image_set(labels, with_margins(labels, margins), groups=[f"tile {i // 2}" for i in range(72)])
    divided = paper.folds(images, 3, SEED)
    found = paper.references_by_fold(divided, SEED)
    expected = {name: np.full(72, -1) for name in found}
    for one in divided:
        for name, answers in paper.references(one, SEED).items():
            expected[name][one.split == "test"] = answers
    assert {name: values.astype(int).tolist() for name, values in found.items()} == {
        name: values.tolist() for name, values in expected.items()
    }
    assert found["majority"].tolist() == [label == 0 for label in labels]


# weights from elsewhere -----------------------------------------------------------------------------------------


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal_states(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def small(classes=3, width=2, channels=1, seed=0):
    torch.manual_seed(seed)
    model = resnet18(classes, width, channels)
    for name, value in model.state_dict().items():
        if "running" in name:
            value.uniform_(0.5, 1.5)
        elif "tracked" in name:
            value.fill_(5)
    return model


def saved(content, tmp_path):
    torch.save(content, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_start_from_its_own_state_dict(tmp_path):
    model, source = small(), small(seed=1)
    assert paper.start_from(model, saved(source.state_dict(), tmp_path)) == []
    assert equal_states(state_of(model), state_of(source))


def test_start_from_leaves_a_head_of_other_classes_out_and_names_it(tmp_path):
    from torchvision.models import resnet18 as theirs

    torch.manual_seed(1)
    source = theirs()
    model = resnet18(3, 64, 3)
    before = state_of(model)
    assert paper.start_from(model, str(saved(source.state_dict(), tmp_path))) == ["fc.weight", "fc.bias"]
    heads = {name: before[name] for name in ("fc.weight", "fc.bias")}
    assert equal_states(state_of(model), {name: source.state_dict()[name] for name in before} | heads)


def test_start_from_colour_in_a_grey_model_is_the_same_network_for_grey_images(tmp_path):
    colour, grey = small(channels=3, seed=1), small(channels=1)
    assert paper.start_from(grey, saved(colour.state_dict(), tmp_path)) == []
    images = torch.rand(4, 1, 48, 48, generator=generator(6))
    with torch.no_grad():
        expected = colour.eval()(images.expand(-1, 3, -1, -1))
        torch.testing.assert_close(grey.eval()(images), expected, atol=1e-5, rtol=0)
    assert expected.std() > 1e-3


def test_start_from_a_file_without_num_batches_tracked(tmp_path):
    model, source = small(), small(seed=1)
    old = {name: value for name, value in source.state_dict().items() if not name.endswith("num_batches_tracked")}
    left = paper.start_from(model, saved(old, tmp_path))
    assert left == [name for name in source.state_dict() if name.endswith("num_batches_tracked")]
    assert len(left) == 20
    assert equal_states(state_of(model), state_of(source))


def test_start_from_says_what_is_wrong_and_changes_nothing(tmp_path):
    model = small()
    before = state_of(model)

    def refused(path, error, match):
        with pytest.raises(error, match=match):
            paper.start_from(model, path)
        assert equal_states(state_of(model), before)

    missing = tmp_path / "none.pt"
    refused(missing, FileNotFoundError, rf"weights {missing} do not exist: correct the path, or leave weights empty")
    refused(tmp_path, FileNotFoundError, "do not exist")
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(saved(model.state_dict(), tmp_path).read_bytes()[:3000])
    refused(damaged, ValueError, rf"weights {damaged} are damaged, or not a state dict: ")
    refused(saved([1, 2, 3], tmp_path), ValueError, "are damaged, or not a state dict: ")
    refused(saved(torch.ones(3), tmp_path), ValueError, "are damaged, or not a state dict: ")
    refused(
        saved({}, tmp_path), ValueError, r"of another network: 102 tensors differ; there \{\}, here \{'conv1.weight"
    )
    without = {name: value for name, value in state_of(model).items() if name != "layer3.0.conv1.weight"}
    text = (
        r"1 tensors differ; there \{\}, here \{'layer3.0.conv1.weight': \(8, 4, 3, 3\)\}. Choose width and grey as the"
    )
    refused(saved(without, tmp_path), ValueError, text)
    text = r"1 tensors differ; there \{'more': \(2,\)\}, here \{\}"
    refused(saved(before | {"more": torch.ones(2)}, tmp_path), ValueError, text)
    text = "weights .* are not a state dict: 'epoch' is no tensor; save model.state_dict()"
    refused(saved(before | {"epoch": 3}, tmp_path), ValueError, text)
    text = r"there \{'conv1.weight': \(4, 1, 7, 7\), 'bn1.weight': \(4,\), .*here \{'conv1.weight': \(2, 1, 7, 7\)"
    refused(saved(small(width=4).state_dict(), tmp_path), ValueError, text)
    text = r"Choose width and grey as the checkpoint was made \(torchvision's resnet18: width 64\)"
    refused(saved(small(width=4, classes=5).state_dict(), tmp_path), ValueError, text)
    without_head = {name: value for name, value in before.items() if not name.startswith("fc.")}
    refused(saved(without_head, tmp_path), ValueError, "2 tensors differ; there {}, here {'fc.weight': ")
    two = before | {"conv1.weight": torch.ones(2, 2, 7, 7)}
    refused(saved(two, tmp_path), ValueError, r"there \{'conv1.weight': \(2, 2, 7, 7\)\}")


class Touches:
    """An object whose unpickling writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_start_from_runs_nothing_that_a_pickle_brings(tmp_path):
    for number, save in enumerate((torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing, 2)))):
        path, mark = tmp_path / f"{number}.pt", tmp_path / f"mark {number}"
        save({"conv1.weight": Touches(mark)}, path)
        with pytest.raises(ValueError, match="are damaged, or not a state dict: "):
            paper.start_from(small(), path)
        assert not mark.exists()


def test_start_from_a_grey_checkpoint_in_a_colour_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"1 tensors differ; .*\(2, 1, 7, 7\).*\(2, 3, 7, 7\)"):
        paper.start_from(small(channels=3), saved(small().state_dict(), tmp_path))


# how the predictions came out -----------------------------------------------------------------------------------


def test_all_six_outcomes():
    labels, predicted = torch.tensor([0, 0, 0, 2, 2, 2]), torch.tensor([0, 2, 1, 0, 3, 2])
    assert paper.outcomes(labels, predicted, [2, 3]).tolist() == list(paper.OUTCOMES)
    assert paper.OUTCOMES == ("correct", "missed", "wrong defect", "false alarm", "wrong normal", "correct normal")
    assert paper.outcomes(labels, predicted, []).tolist() == [
        "correct",
        "wrong defect",
        "wrong defect",
        "wrong defect",
        "wrong defect",
        "correct",
    ]


# where the maps lie ---------------------------------------------------------------------------------------------


def test_agreement_by_hand():
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2, :2] = True
    split = torch.tensor([[8.0, 4, 0, 0], [3, 0, 0, 0], [0, 0, 0, 5], [-7, 0, 0, 0]])
    off = torch.zeros(4, 4)
    off[3, 3] = 2
    found = paper.agreement(
        torch.stack([split, mask.float(), off, torch.zeros(4, 4), torch.ones(4, 4)]), mask.expand(5, 4, 4)
    )
    columns = ["area", "energy", "pointing", "coverage", "iou", "pieces"]
    expected = [
        [0.25, 15 / 20, 1, 2 / 4, 2 / 5, 2],
        [0.25, 1, 1, 1, 1, 1],
        [0.25, 0, 0, 0, 0, 1],
        [0.25, 0.25, 0.25, 0, 0, 0],  # without positive values: as a uniform map, but nothing is high
        [0.25, 0.25, 0.25, 1, 4 / 16, 1],
    ]
    denied = torch.full((1, 4, 4), -2.0)
    denied[0, 0, 0] = -1  # its highest pixel is inside, but says nothing for it
    assert paper.agreement(denied, mask[None]).iloc[0].tolist() == expected[3]
    pd.testing.assert_frame_equal(found, pd.DataFrame(expected, columns=columns, dtype=float))
    assert set(paper.SCORES) == set(columns) - {"area"}


def test_agreement_of_no_images_has_the_same_columns():
    empty = paper.no_agreement()
    mask = torch.ones(1, 2, 2, dtype=torch.bool)
    full = paper.agreement(mask.float(), mask).join(paper.on_the_grid(mask.float(), mask, (1, 1)))
    assert list(empty.columns) == list(full.columns)
    assert len(empty) == 0
    assert set(empty.dtypes) == {np.dtype(float)}


def test_attainable_energy_is_that_of_the_best_cell():
    cells = paper.one_cell_maps((2, 2), (4, 4))
    falling = torch.tensor([1, 0.75, 0.25, 0], dtype=torch.float64)  # bilinear, between cell centres at 0.5 and 2.5
    torch.testing.assert_close(cells[0], falling[:, None] * falling)
    torch.testing.assert_close(cells[3], falling.flip(0)[:, None] * falling.flip(0))
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, :2, 3] = True  # top right: cell 1
    masks[1, 1:, 1] = True
    best, cell = paper.attainable(masks, (2, 2))
    # cell 1 has (1 + 0.75) · 1 of its 2 · 2; of cell 2, column 1 has 0.75, and rows 1 to 3 hold all 2 of 2
    torch.testing.assert_close(best, torch.tensor([1.75 / 4, 0.75 * 2 / 4], dtype=torch.float64))
    assert cell.tolist() == [1, 2]


def test_no_map_on_the_grid_has_more_energy_than_is_attainable():
    masks = torch.rand(30, 24, 36, generator=generator(7)) < 0.03
    masks[:, 5, 6] = True
    best, cell = paper.attainable(masks, (3, 4))
    grids = torch.rand(400, 3, 4, generator=generator(8)) ** 8
    for mask, most in zip(masks, best):
        maps = upsample(grids, (24, 36))
        found = localization.energy_inside(maps, mask.expand(400, -1, -1))
        assert found.max() <= most + 1e-6
    alone = paper.one_cell_maps((3, 4), (24, 36))[cell]
    torch.testing.assert_close(localization.energy_inside(alone, masks), best)


def test_near_is_one_cell_in_each_direction():
    mask = torch.zeros(1, 8, 12, dtype=torch.bool)
    mask[0, 4, 5] = True
    expected = torch.zeros(8, 12, dtype=torch.bool)
    expected[2:7, 2:9] = True  # a cell of 4 × 4 on 8 × 12 has 2 × 3 pixels
    assert torch.equal(paper.near(mask, (4, 4))[0], expected)
    assert paper.near(mask, (3, 4))[0].any(1).tolist() == [False] + [True] * 7  # 8 / 3 counts as 3 pixels


def test_on_the_grid_by_hand():
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0, 0] = True
    one_cell = paper.one_cell_maps((2, 2), (4, 4)).float()
    denied = torch.full((4, 4), -2.0)
    denied[3, 3] = -1  # its highest pixel is far away, but says nothing: the map counts as uniform
    maps = torch.stack([one_cell[0], one_cell[3], torch.ones(4, 4), denied])
    found = paper.on_the_grid(maps, mask.expand(4, 4, 4), (2, 2))
    best, area = 1 / 4, 1 / 16  # the corner pixel of cell 0 has 1 of its sum, 2 · 2
    assert found.attainable.tolist() == [best] * 4
    np.testing.assert_allclose(found.share, [1, 0, area / best, area / best])
    assert found.near.tolist() == [1, 0, 9 / 16, 9 / 16]  # a cell is 2 pixels wide: rows and columns 0 to 2
    assert found.near_area.tolist() == [9 / 16] * 4
    assert found.peak.tolist() == [1] * 4
    inner = torch.zeros(2, 8, 8, dtype=torch.bool)
    inner[0, 1:3, 1] = True  # cell 0 of 2 × 2 has its four highest pixels in rows and columns 0 and 1
    inner[1, 2:6, 2:6] = True
    assert paper.on_the_grid(torch.ones(2, 8, 8), inner, (2, 2)).peak.tolist() == [1 / 4, 0]


def test_the_map_that_knows_the_middle_alone():
    found = paper.centred((9, 15), 0.2)
    for i, j in itertools.product(range(9), range(15)):
        expected = math.exp(-(((i - 4) / (0.2 * 9)) ** 2 + ((j - 7) / (0.2 * 15)) ** 2) / 2)
        assert found[i, j].item() == pytest.approx(expected, rel=1e-5)
    assert found.max() == found[4, 7] == 1
    even = paper.centred((8, 8))
    assert torch.equal(even, even.flip(0))
    assert torch.equal(even, even.T)
    assert even[3, 3] == pytest.approx(math.exp(-2 * (0.5 / (8 / 6)) ** 2 / 2))


def scores_of(column, n, seed=1):
    """Scores of n images that are noise, but for the energy."""
    noise = np.random.default_rng(seed).random((n, len(paper.SCORES)))
    return pd.DataFrame(noise, columns=list(paper.SCORES)).assign(area=0.5, energy=column)


def test_error_auroc_where_the_energy_tells_and_where_nothing_does():
    rng = np.random.default_rng(2)
    wrong = np.arange(120) % 3 == 0
    told = paper.error_auroc(scores_of(rng.random(120) - 3 * wrong, 120), wrong, None, SEED)
    assert told.value > 0.98
    assert told.low > 0.9
    assert told.n == 120
    untold = paper.error_auroc(scores_of(rng.random(120), 120), wrong, np.arange(120) // 2, SEED)
    assert 0.3 < untold.value < 0.65
    assert untold.low < 0.5


def test_error_auroc_sees_the_scores_only():
    wrong = np.arange(80) % 2 == 0
    scores = scores_of(np.random.default_rng(3).random(80), 80)
    found = paper.error_auroc(scores, wrong, None, SEED)
    assert found == paper.error_auroc(scores.assign(area=wrong.astype(float)), wrong, None, SEED)
    for name in paper.SCORES:
        assert paper.error_auroc(scores.assign(**{name: wrong.astype(float)}), wrong, None, SEED).value > 0.99


def test_error_auroc_never_scores_an_image_by_a_fit_that_saw_its_group(monkeypatch):
    seen = []
    logistic = shared.logistic

    def watched():
        pipeline = logistic()

        class Watched(type(pipeline)):
            def fit(self, x, y):
                self.trained = set(x[:, 0])
                return super().fit(x, y)

            def decision_function(self, x):
                seen.append((self.trained, set(x[:, 0])))
                return super().decision_function(x)

        return Watched(pipeline.steps)

    monkeypatch.setattr(shared, "logistic", watched)
    tiles = np.repeat(np.arange(20), 6)
    wrong = np.random.default_rng(4).random(20)[tiles] < 0.5  # all images of a tile are alike: the tile is the answer
    found = paper.error_auroc(scores_of(tiles.astype(float), 120), wrong, tiles, SEED)
    assert 0.1 < found.value < 0.9
    assert len(seen) == 5
    assert all(not trained & scored for trained, scored in seen)
    assert set.union(*(scored for _, scored in seen)) == set(range(20))
    seen.clear()
    paper.error_auroc(scores_of(np.arange(6.0), 6), np.arange(6) < 3, None, SEED)
    assert len(seen) == 3  # no more folds than groups of either kind


def test_error_auroc_needs_right_and_wrong_in_three_groups():
    scores, tiles = scores_of(np.arange(12.0), 12), np.arange(12) // 2
    for wrong, count in ((tiles < 2, 4), (tiles >= 2, 8)):
        note = f"{count} of 12 images, of {count // 2} groups ({6 - count // 2} the others): fewer than 3"
        assert paper.error_auroc(scores, wrong, tiles, SEED) == Estimate(None, 12, note=note)
    assert paper.error_auroc(scores, np.zeros(12, dtype=bool), None, SEED).value is None


def test_error_auroc_without_wrong_predictions_to_learn_from(monkeypatch):
    wrong = np.arange(12) < 4

    class Unlucky:
        def __init__(self, *_, **__):
            pass

        def split(self, *_):
            return [(np.flatnonzero(~wrong), np.flatnonzero(wrong)), (np.flatnonzero(wrong), np.flatnonzero(~wrong))]

    monkeypatch.setattr(paper, "StratifiedGroupKFold", Unlucky)
    note = "one group of images holds nearly all wrong, or right, predictions"
    found = paper.error_auroc(scores_of(np.arange(12.0), 12), wrong, None, SEED)
    assert found == Estimate(None, 12, note=note)


# without a mask -------------------------------------------------------------------------------------------------


def test_suspicious_features_are_the_single_metrics():
    predicted, grid = torch.tensor([0, 1, 2, 1, 0, 2]), torch.rand(6, 4, 4, generator=generator(10))
    found, maps = Explained(torch.zeros(6, 3), predicted, grid, None), torch.rand(6, 8, 8, generator=generator(11))
    train, labels = torch.rand(9, 4, 4, generator=generator(12)), torch.arange(9) % 3
    means = consistency.class_means(train, labels, torch.ones(9, dtype=torch.bool), 3)
    table = paper.suspicious_features(found, maps, means)
    distance = []
    for saliency, label in zip(grid.double(), predicted):
        mean = torch.stack([x / x.norm() for x in train[labels == label].double()]).mean(0)
        distance.append((saliency / saliency.norm() - mean).square().sum().item())
    expected = {
        "pieces": localization.pieces(maps).double(),
        "spread": consistency.attention_spread(grid),
        "area": consistency.attention_area(grid),
        "distance": distance,
    }
    assert list(table.columns) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(table[name], values, rtol=1e-5)
    none = torch.zeros(9, dtype=torch.bool)
    without = paper.suspicious_features(found, maps, consistency.class_means(train, labels, labels != 2, 3))["distance"]
    largest = max(distance[i] for i in (0, 1, 3, 4))
    np.testing.assert_allclose(without, [*distance[:2], largest, *distance[3:5], largest], rtol=1e-5)
    empty = paper.suspicious_features(found, maps, consistency.class_means(train, labels, none, 3))
    assert empty["distance"].tolist() == [0] * 6


def test_suspicion_learns_on_validation_images_and_ranks_others():
    rng = np.random.default_rng(5)
    wrong = np.arange(60) % 6 == 0
    columns = ["pieces", "spread", "area", "distance"]
    features = pd.DataFrame(rng.random((60, 4)), columns=columns)
    features["distance"] += wrong
    features["pieces"] *= 1000  # the unit of a column does not matter
    images = pd.DataFrame(rng.random((20, 4)) * [1000, 1, 1, 2], columns=columns)
    found = paper.suspicion(features, wrong, images)
    assert found.shape == (20,)
    assert np.corrcoef(found, images["distance"])[0, 1] > 0.9
    scaled = [1e-3, 1, 1, 1]
    np.testing.assert_allclose(paper.suspicion(features * scaled, wrong, images * scaled), found, rtol=1e-6)
    assert (paper.suspicion(features, wrong, features) > 0).mean() > 0.12  # few wrong ones weigh as much as many right
    for all_alike in (np.zeros(60, dtype=bool), np.ones(60, dtype=bool)):
        assert paper.suspicion(features, all_alike, images) is None


def test_warned_are_the_steps_one_after_the_other():
    network, images = three_networks()[0], divided_images()[0]
    base, val, test = (images.take(np.arange(k, 36, 3)) for k in range(3))
    found = paper.warned(network, "layer2", base, val, test.images)
    seen, checked, tested = (shared.predict_and_explain(network, "layer2", part.images) for part in (base, val, test))
    means = consistency.class_means(seen.maps, base.labels, seen.predicted == base.labels, 3)

    def features(explained):
        return paper.suspicious_features(explained, upsample(explained.maps, (32, 32)), means)

    wrong = (checked.predicted != val.labels).numpy()
    assert 0 < wrong.sum() < len(wrong)
    shape = features(tested)
    pd.testing.assert_frame_equal(found.shape, shape)
    assert torch.equal(found.maps, tested.maps)
    doubt = [features(one).assign(doubt=one.uncertainty) for one in (checked, tested)]
    expected = {"map": paper.suspicion(features(checked), wrong, shape), "confidence": tested.uncertainty.numpy()}
    expected |= {"both": paper.suspicion(doubt[0], wrong, doubt[1])} | {name: shape[name] for name in shape}
    assert list(found.scores) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found.scores[name], values)
    np.testing.assert_array_equal(found.rank(tested), found.scores["map"])


def test_each_image_is_warned_of_by_its_own_network(monkeypatch):
    networks, divided = three_networks(), divided_images()
    found = paper.warned_by_fold(networks, "layer2", divided)
    for network, images in zip(networks, divided):
        base, val, test = (images.subset(part) for part in ("train", "val", "test"))
        alone, rows = paper.warned(network, "layer2", base, val, test.images), np.flatnonzero(images.split == "test")
        for name, values in alone.scores.items():
            if found.scores[name] is not None:
                np.testing.assert_array_equal(found.scores[name][rows], values)
            assert name in ("map", "both") or found.scores[name] is not None
        assert torch.equal(found.maps[torch.from_numpy(rows)], alone.maps)
        np.testing.assert_array_equal(found.shape.iloc[rows].to_numpy(), alone.shape.to_numpy())
    assert found.shape.index.tolist() == list(range(36))
    real, calls = paper.warned, []

    def unlearnt_once(*arguments):
        calls.append(arguments)
        one = real(*arguments)
        return one._replace(scores=one.scores | {"map": None if len(calls) == 2 else np.zeros(len(one.shape))})

    monkeypatch.setattr(paper, "warned", unlearnt_once)
    scores = paper.warned_by_fold(networks, "layer2", divided).scores
    assert scores["map"] is None
    assert len(scores["confidence"]) == 36


def test_halves_divide_no_group_and_share_every_class():
    rng = np.random.default_rng(6)
    tiles = np.repeat(np.arange(20), 3)[rng.permutation(60)]
    labels = (tiles % 3).tolist()
    images = image_set(labels, groups=[f"tile {t}" for t in tiles])
    one, two = paper.halves(images, SEED)
    assert sorted([*one, *two]) == list(range(60))
    assert one.tolist() == sorted(one)
    assert not set(tiles[one]) & set(tiles[two])
    for label in range(3):
        sizes = [len({t for t in tiles[rows] if t % 3 == label}) for rows in (one, two)]
        assert sum(sizes) == sum(t % 3 == label for t in range(20))
        assert sizes[0] - sizes[1] in (0, 1)
    assert np.array_equal(paper.halves(images, SEED)[0], one)
    assert not np.array_equal(paper.halves(images, SEED + 1)[0], one)


def test_halves_of_two_groups_a_class_and_without_groups():
    images = image_set(
        [0, 0, 0, 1, 1, 0], groups=["a", "a", "b", "c", "d", "d"]
    )  # d counts as class 0: the first of equals
    for seed in range(5):
        one, two = paper.halves(images.take(np.arange(4)), seed)
        assert {"a", "b"} == {*images.groups[one], *images.groups[two]} - {"c"}
        assert {0} <= set(images.labels[one].tolist()) & set(images.labels[two].tolist())
        assert 3 in one  # a class of one group is for training
        mixed = paper.halves(images, seed)
        assert (4 in mixed[0]) == (5 in mixed[0])
    mostly = image_set([0, 1, 1, 1, 1, 1], groups=["a", "a", "a", "b", "b", "b"])
    for seed in range(5):
        assert [len(rows) for rows in paper.halves(mostly, seed)] == [3, 3]  # a is of class 1, too
    alone = image_set([0, 1] * 6)
    one, two = paper.halves(alone, SEED)
    assert sorted([*one, *two]) == list(range(12))
    assert [alone.labels[rows].bincount().tolist() for rows in (one, two)] == [[3, 3], [3, 3]]
    assert paper.halves(image_set([0, 0, 0, 0, 0]), SEED)[0].size == 3


def test_random_scores():
    found = paper.random_scores(1000, 3)
    assert np.array_equal(found, paper.random_scores(1000, 3))
    assert not np.array_equal(found, paper.random_scores(1000, 4))
    assert found.shape == (1000,)
    assert 0 <= found.min() < 0.05
    assert 0.95 < found.max() < 1


def test_the_first_places_of_rankings():
    found = paper.chosen({"one": np.array([0.1, 0.9, 0.5, 0.9, -1]), "two": np.zeros(5)}, 3)
    assert {name: rows.tolist() for name, rows in found.items()} == {"one": [1, 3, 2], "two": [0, 1, 2]}
    assert len(paper.chosen({"all": np.arange(4)}, 9)["all"]) == 4


def test_added_images_and_equal_numbers_of_every_class():
    images = image_set([0, 1, 2, 0, 0, 1, 2, 2])
    base = np.array([0, 1, 2])
    found = paper.with_added(images, base, {"zeros": [3, 4], "mixed": [5, 7], "none": np.empty(0, dtype=int)})
    assert {name: entry.labels.bincount().tolist() for name, entry in found.items()} == {
        "zeros": [3, 3, 3],
        "mixed": [3, 3, 3],
        "none": [3, 3, 3],
    }
    ids = {name: [int(i.split()[1]) for i in entry.ids] for name, entry in found.items()}
    assert ids["zeros"] == [0, 3, 4, 1, 1, 1, 2, 2, 2]
    assert ids["mixed"] == [0, 0, 0, 1, 5, 1, 2, 7, 2]
    assert ids["none"] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
