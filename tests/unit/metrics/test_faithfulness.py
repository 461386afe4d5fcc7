"""Insertion and deletion: end points, ties, fractions, batches, baselines, and what they refuse."""

import copy
import math

import pytest
import torch
from torch import nn

from xai_utils.metrics.faithfulness import TIES, insertion_deletion, pixel_order, score_orders


class Mean(nn.Module):
    """A single output: the mean of the pixels. Notes how many images each call has."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        return x.mean((1, 2, 3))


def classifier(dtype=torch.float64):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten())
    model.append(nn.Linear(4 * 5 * 6, 3))
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    return model.to(dtype).eval()


def batch(n=3, dtype=torch.float64):
    random = torch.Generator().manual_seed(4)
    return torch.rand(n, 2, 7, 8, dtype=dtype, generator=random), torch.randn(n, 7, 8, dtype=dtype, generator=random)


def test_both_end_points_belong_to_both_curves():
    model, (x, saliency) = classifier(), batch()
    targets = torch.tensor([2, 0, 1])
    result = insertion_deletion(model, x, saliency, targets, steps=7)
    with torch.no_grad():
        full = model(x).softmax(1)[torch.arange(3), targets]
        empty = model(torch.zeros_like(x)).softmax(1)[torch.arange(3), targets]
    assert result.insertion.shape == result.deletion.shape == (3, 8)
    assert result.fractions.tolist() == [n / 7 for n in range(8)]
    for curve, ends in ((result.insertion, (empty, full)), (result.deletion, (full, empty))):
        torch.testing.assert_close(curve[:, 0], ends[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(curve[:, -1], ends[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(result.id_score, result.insertion_auc - result.deletion_auc)


def test_the_mean_of_an_image_of_ones_shows_the_true_fractions():
    """56 pixels in 10 steps: k = 0, 6, 11, 17, 22, 28, …; 5.6 rounds up, 11.2 down."""
    x, saliency = torch.ones(1, 2, 7, 8, dtype=torch.float64), batch(1)[1]
    result = insertion_deletion(Mean(), x, saliency, steps=10)
    pixels = [0, 6, 11, 17, 22, 28, 34, 39, 45, 50, 56]
    torch.testing.assert_close(result.fractions, torch.tensor(pixels).double() / 56)
    torch.testing.assert_close(result.insertion[0], result.fractions)
    torch.testing.assert_close(result.deletion[0], 1 - result.fractions)
    assert result.insertion_auc.item() == pytest.approx(0.5, abs=1e-12)
    assert result.id_score.item() == pytest.approx(0, abs=1e-12)


def test_a_half_pixel_rounds_to_even():
    x = torch.ones(1, 1, 1, 5)
    assert insertion_deletion(Mean(), x, x[0], steps=2).fractions.tolist() == pytest.approx([0, 2 / 5, 1])


def test_equal_pixels_go_in_reading_order():
    """A flat map: pixel after pixel. A binary one: first its ones, then its zeros."""
    x = torch.arange(1.0, 7.0).double().reshape(1, 1, 2, 3)
    flat = insertion_deletion(Mean(), x, torch.zeros(1, 2, 3), steps=6).insertion[0] * 6
    assert flat.tolist() == pytest.approx([0, 1, 3, 6, 10, 15, 21])
    ones = torch.tensor([[[0, 1, 0], [1, 0, 1]]], dtype=torch.bool)
    marked = insertion_deletion(Mean(), x, ones, steps=6)
    assert (marked.insertion[0] * 6).tolist() == pytest.approx([0, 2, 6, 12, 13, 16, 21])
    assert (marked.deletion[0] * 6).tolist() == pytest.approx([21, 19, 15, 9, 8, 5, 0])


def six(saliency, **options):
    """Curves, in sums of the pixels 1 … 6, of a map (2, 3)."""
    x = torch.arange(1.0, 7.0).double().reshape(1, 1, 2, 3)
    result = insertion_deletion(Mean(), x, torch.as_tensor(saliency)[None], steps=6, **options)
    return (result.insertion[0] * 6).tolist(), (result.deletion[0] * 6).tolist(), result


def test_ties_together_bring_in_every_pixel_of_the_last_value():
    """Ones at 2, 4 and 6: the first step asks for one pixel and gets all three, the fourth gets the whole image."""
    insertion, deletion, result = six([[0, 1, 0], [1, 0, 1]], ties="together")
    assert insertion == pytest.approx([0, 12, 12, 12, 21, 21, 21])
    assert deletion == pytest.approx([21, 9, 9, 9, 0, 0, 0])
    assert result.fractions.tolist() == pytest.approx([k / 6 for k in range(7)])  # what was asked for
    insertion, deletion, _ = six([[2.0, 0.5, 0.5], [0.5, 3.0, -1.0]], ties="together")
    assert insertion == pytest.approx([0, 5, 6, 15, 15, 15, 21])
    assert deletion == pytest.approx([21, 16, 15, 6, 6, 6, 0])


def test_one_pixel_and_a_blank_map_score_highest_together_and_nothing_in_reading_order():
    """Together both say: after one step the whole image is in (or gone). ID = (1 − 1/S) (full − empty)."""
    x = torch.ones(1, 1, 4, 5)
    one, blank = torch.zeros(1, 4, 5), torch.zeros(1, 4, 5)
    one[0, 2, 3] = 1
    for saliency in (one, blank):
        together = insertion_deletion(Mean(), x, saliency, steps=5, ties="together")
        assert together.insertion[0].tolist() == pytest.approx([0, 1, 1, 1, 1, 1])
        assert together.deletion[0].tolist() == pytest.approx([1, 0, 0, 0, 0, 0])
        assert together.id_score.item() == pytest.approx(1 - 1 / 5)
        for ties in ("reading", "random"):
            assert insertion_deletion(Mean(), x, saliency, steps=5, ties=ties).id_score.item() == pytest.approx(0)
    first = insertion_deletion(Mean(), x, one, steps=20, ties="together").insertion[0]
    assert first.tolist() == pytest.approx([0, 1 / 20, *[1] * 19])  # with a step a pixel the one pixel comes alone


def test_a_random_order_moves_ties_alone_and_follows_the_seed():
    marks = [[0, 1, 0], [1, 0, 1]]
    seen = [six(marks, ties="random", seed=seed)[0] for seed in range(300)]
    assert all(curve[3] == pytest.approx(12) and curve[6] == pytest.approx(21) for curve in seen)  # the ones, then all
    assert {round(curve[1]) for curve in seen} == {2, 4, 6}  # any of the ones may be first
    assert {round(curve[4]) for curve in seen} == {13, 15, 17}
    assert sum(curve[1] for curve in seen) / 300 == pytest.approx(4, abs=0.3)
    assert six(marks, ties="random", seed=7)[0] == seen[7]
    insertion, deletion, _ = six(marks, ties="random", seed=7)
    assert [a + b for a, b in zip(insertion, deletion)] == pytest.approx([21] * 7)  # one order for both curves


def test_each_image_has_a_random_order_of_its_own():
    x = torch.arange(1.0, 21.0).double().reshape(1, 1, 4, 5).expand(2, -1, -1, -1)
    both = insertion_deletion(Mean(), x, torch.zeros(2, 4, 5), steps=20, ties="random").insertion
    alone = insertion_deletion(Mean(), x[:1], torch.zeros(1, 4, 5), steps=20, ties="random").insertion
    assert torch.equal(both[0], alone[0])  # the first image has the first order, however many follow
    assert not torch.equal(both[0], both[1])


def test_without_ties_the_three_orders_are_one():
    model, (x, saliency) = classifier(), batch()
    expected = insertion_deletion(model, x, saliency, 1, steps=9)
    assert expected.tied.tolist() == [0, 0, 0]
    for ties in ("reading", "random", "together"):
        for mine, other in zip(insertion_deletion(model, x, saliency, 1, steps=9, ties=ties), expected):
            assert torch.equal(mine, other)


@pytest.mark.parametrize("ties", ["reading", "random", "together"])
def test_tied_is_the_share_of_pixels_whose_value_another_pixel_has(ties):
    maps = torch.tensor([[[3, 1, 1], [0, 2, -1]], [[0, 0, 5], [-0.0, 5, 1]], [[2, 2, 2], [2, 2, 2]]])
    result = insertion_deletion(Mean(), torch.ones(3, 1, 2, 3), maps, steps=3, ties=ties)
    assert result.tied.tolist() == pytest.approx([2 / 6, 5 / 6, 1])
    assert result.tied.dtype == torch.float32


def test_the_scale_of_a_map_does_not_matter_its_order_does():
    model, (x, saliency) = classifier(), batch()
    expected = insertion_deletion(model, x, saliency, 1, steps=9)
    again = insertion_deletion(model, x, saliency * 1e-9 - 3e-9, 1, steps=9)
    for mine, other in zip(expected, again):
        assert torch.equal(mine, other)
    turned = insertion_deletion(model, x, -saliency, 1, steps=9)
    assert not torch.allclose(turned.insertion, expected.insertion)
    # the last pixels first: what one curve inserts, the other leaves (56 pixels, 7 steps of 8)
    one, other = (insertion_deletion(model, x, maps, 1, steps=7) for maps in (saliency, -saliency))
    torch.testing.assert_close(one.insertion, other.deletion.flip(1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_images_and_steps_share_batches_and_nothing_is_scored_twice(batch_size):
    model, (x, saliency) = Mean(), batch()
    expected = insertion_deletion(Mean(), x, saliency, steps=5)
    result = insertion_deletion(model, x, saliency, steps=5, batch_size=batch_size)
    torch.testing.assert_close(result.insertion, expected.insertion, rtol=0, atol=1e-14)
    torch.testing.assert_close(result.deletion, expected.deletion, rtol=0, atol=1e-14)
    assert model.sizes[1] == 1  # what made the outputs is looked up in the graph of one image
    scored = model.sizes[2:]  # after the one look at the outputs' shape
    assert sum(scored) == 3 * 2 * 5  # S + 1 of insertion, S - 1 of deletion
    assert set(scored[:-1]) <= {batch_size}
    assert max(scored) <= batch_size


def with_ties():
    """Three maps of each of three images: without equal pixels, with some, and blank."""
    x, untied = batch()
    return x, {"untied": untied, "coarse": untied.round(), "blank": torch.zeros_like(untied)}


def every_order(maps, steps):
    return {
        (name, ties): pixel_order(values, steps, ties=ties, seed=1) for name, values in maps.items() for ties in TIES
    }


def test_orders_scored_together_are_those_scored_one_by_one():
    (x, maps), targets = with_ties(), torch.tensor([2, 0, 1])
    torch.manual_seed(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 7 * 8, 3)).double()
    orders = every_order(maps, 9)
    found = score_orders(model, x, list(orders.values()), targets, baseline="mean")
    for (name, ties), together in zip(orders, found, strict=True):
        options = {"steps": 9, "ties": ties, "seed": 1, "baseline": "mean"}
        for mine, alone in zip(together, insertion_deletion(model, x, maps[name], targets, **options), strict=True):
            torch.testing.assert_close(mine, alone, rtol=0, atol=1e-12)
    assert len({tuple(curves.insertion.flatten().tolist()) for curves in found}) == 7  # the untied map has one


def test_no_picture_is_scored_twice_whatever_orders_show_it():
    class Album(Mean):
        def forward(self, x):
            self.pages = [*getattr(self, "pages", []), *x.detach().clone()]
            return super().forward(x)

    x, maps = with_ties()
    expected = set()
    for order in every_order(maps, 7).values():
        for n in range(3):
            for step in range(8):
                inserted = x[n] * (order.entry[n] <= step)
                expected |= {tuple(picture.flatten().tolist()) for picture in (inserted, x[n] - inserted)}
    model = Album()
    score_orders(model, x, list(every_order(maps, 7).values()), batch_size=4)
    looked = sum(model.sizes[:2])  # at the outputs' shape
    scored = [tuple(picture.flatten().tolist()) for picture in model.pages[looked:]]
    assert len(scored) == len(set(scored)) + 2  # the empty picture is that of all three images
    assert set(scored) == expected
    assert max(model.sizes[2:]) == 4  # however many orders


@pytest.mark.parametrize(
    ("chosen", "pictures"),
    [
        ([("untied", "reading")], 14),  # S + 1 of insertion, S - 1 of deletion
        ([("untied", ties) for ties in TIES], 14),
        ([("untied", "reading"), ("blank", "reading")], 14 + 12),  # the same two ends
        ([("blank", "together")], 2),  # nothing, and all at once
        ([("untied", "together"), ("blank", "together")], 14),
    ],
)
def test_how_many_pictures_are_scored(chosen, pictures):
    (x, maps), model = with_ties(), Mean()
    score_orders(model, x, [every_order(maps, 7)[key] for key in chosen], batch_size=2)
    assert sum(model.sizes[2:]) == 3 * pictures


@pytest.mark.parametrize(("steps", "sizes"), [(2, [16]), (3, [18]), (5, [20, 16]), (6, [20, 16]), (8, [20, 20, 16])])
def test_a_last_batch_of_few_pictures_is_filled_up(steps, sizes):
    (x, maps), model = with_ties(), Mean()
    score_orders(model, x, [pixel_order(maps["untied"], steps)], batch_size=20)
    assert model.sizes[2:] == sizes  # of 6 S pictures


def test_one_order_at_a_time_gives_the_same_bits():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU())
    model = torch.nn.Sequential(model, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 2)).eval()
    x = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    orders = [pixel_order(x[:, 0], 7), pixel_order(x[:, 1], 7), pixel_order((x[:, 2] > 0.9).float(), 7)]
    for order, found in zip(orders, score_orders(model, x, orders, 1), strict=True):
        (alone,) = score_orders(model, x, [order], 1)
        assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))


@pytest.mark.parametrize(("steps", "dtype"), [(255, torch.uint8), (256, torch.int32), (300, torch.int32)])
def test_an_order_takes_a_byte_a_pixel_up_to_255_steps(steps, dtype):
    maps = batch(1)[1].repeat(1, 3, 3)
    order = pixel_order(maps, steps)
    assert order.entry.dtype == dtype
    assert (order.entry.min(), order.entry.max()) == (1, steps)
    assert order.entry.flatten().long().bincount().cumsum(0).tolist() == order.first.tolist()
    found = score_orders(Mean(), torch.ones(1, 1, 21, 24), [order])[0]
    torch.testing.assert_close(found.insertion[0], found.fractions)


def test_orders_that_do_not_fit_together_are_refused():
    x, maps = with_ties()
    orders = [pixel_order(maps["untied"], steps) for steps in (5, 7)]
    with pytest.raises(ValueError, match=r"orders: got \[5, 7\] steps; expected one order or more, of the same number"):
        score_orders(Mean(), x, orders)
    with pytest.raises(ValueError, match=r"orders: got \[\] steps"):
        score_orders(Mean(), x, [])
    with pytest.raises(ValueError, match=r"saliency: got \(2, 7, 8\); expected a tensor \(3, 7, 8\)"):
        score_orders(Mean(), x, [pixel_order(maps["untied"][:2], 5)])


def test_each_image_on_its_own_has_the_same_curves():
    model, (x, saliency) = classifier(), batch()
    together = insertion_deletion(model, x, saliency, torch.tensor([2, 0, 1]), steps=6, baseline="mean")
    for n, target in enumerate((2, 0, 1)):
        alone = insertion_deletion(model, x[n : n + 1], saliency[n : n + 1], target, steps=6, baseline="mean")
        torch.testing.assert_close(alone.insertion[0], together.insertion[n], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone.id_score[0], together.id_score[n], rtol=0, atol=1e-12)


def test_the_logit_and_dtypes():
    model, (x, saliency) = classifier(), batch()
    with torch.no_grad():
        logits = model(x)[:, 1]
    result = insertion_deletion(model, x, saliency, 1, steps=3, score="logit")
    torch.testing.assert_close(result.insertion[:, -1], logits, rtol=0, atol=1e-12)
    small = insertion_deletion(classifier(torch.float32), x.float(), saliency, 1, steps=3, score="logit")
    assert {part.dtype for part in small} == {torch.float32}
    assert {part.dtype for part in result} == {torch.float64}
    torch.testing.assert_close(small.insertion, result.insertion.float(), rtol=1e-5, atol=1e-5)


def test_baselines():
    x = batch()[0]
    saliency = batch()[1]

    def hidden(**options):
        return insertion_deletion(Mean(), x, saliency, steps=2, **options).insertion[:, 0]

    assert hidden().tolist() == [0, 0, 0]
    torch.testing.assert_close(hidden(baseline="mean"), x.mean((1, 2, 3)))
    black = hidden(baseline="black", normalization=([0.2, 0.6], torch.tensor([0.5, 0.1])))
    torch.testing.assert_close(black, torch.full((3,), (-0.4 - 6.0) / 2, dtype=torch.float64))
    torch.testing.assert_close(hidden(baseline="black", normalization=(0.5, 0.25)), torch.full_like(black, -2))
    for values in (
        torch.tensor(0.5),
        torch.full((2, 1, 1), 0.5),
        torch.full_like(x, 0.5),
        torch.full((3, 1, 1, 1), 0.5),
    ):
        torch.testing.assert_close(hidden(baseline=values), torch.full_like(black, 0.5))
    torch.testing.assert_close(hidden(baseline=x.flip(0)), x.flip(0).mean((1, 2, 3)))
    flat = torch.full_like(x, 0.3)  # blurring leaves a flat image, its borders too
    blurred = insertion_deletion(Mean(), flat, saliency, steps=2, baseline="blur").insertion
    torch.testing.assert_close(blurred, torch.full_like(blurred, 0.3))


def test_a_point_is_blurred_to_a_gaussian_of_eleven_pixels():
    class Pixels(nn.Module):
        def forward(self, x):
            return x.flatten(1)

    x = torch.zeros(1, 1, 15, 15, dtype=torch.float64)
    x[0, 0, 7, 7] = 1
    spread = [
        insertion_deletion(Pixels(), x, x[0], 15 * 7 + column, steps=1, baseline="blur", score="logit").insertion[0, 0]
        for column in range(15)
    ]
    weights = [math.exp(-(offset**2) / 50) for offset in range(-5, 6)]
    expected = [weight * 1.0 / sum(weights) ** 2 for weight in weights]
    assert [value.item() for value in spread] == pytest.approx([0, 0, *expected, 0, 0], abs=1e-12)


def test_the_model_and_the_arguments_are_left_as_found():
    model, (x, saliency) = classifier().train(), batch()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    x.requires_grad_()
    saliency.requires_grad_()
    before, kept, maps = copy.deepcopy(model.state_dict()), x.detach().clone(), saliency.detach().clone()
    result = insertion_deletion(model, x, saliency, 1, steps=4)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert torch.equal(x, kept)
    assert torch.equal(saliency, maps)
    assert not result.insertion.requires_grad
    expected = insertion_deletion(classifier(), kept, maps, 1, steps=4)  # in evaluation mode
    torch.testing.assert_close(result.insertion, expected.insertion)
    with torch.inference_mode():
        again = insertion_deletion(classifier(), *batch(), 1, steps=4)
    torch.testing.assert_close(again.insertion, expected.insertion)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps": 57}, ValueError, "steps: got 57; expected an integer from 1 to the number of pixels, 56"),
        ({"steps": 0}, ValueError, "steps: got 0"),
        ({"steps": 5.0}, ValueError, r"steps: got 5\.0"),
        ({"steps": True}, ValueError, "steps: got True"),
        ({"baseline": "white"}, ValueError, "baseline: got 'white'; expected zero, black, blur, mean or a tensor"),
        (
            {"baseline": torch.zeros(3, 7, 8)},
            ValueError,
            r"baseline: got shape \(3, 7, 8\); expected one that broadcasts",
        ),
        ({"baseline": torch.tensor(torch.nan)}, ValueError, "baseline: holds NaN"),
        ({"baseline": "black"}, ValueError, r"normalization: got None; baseline \"black\" needs the \(mean, std\)"),
        ({"baseline": "black", "normalization": 0.5}, ValueError, "normalization: got 0.5; expected"),
        ({"baseline": "black", "normalization": ([1, 2, 3], 1)}, ValueError, "each a number or 2 of them"),
        ({"baseline": "black", "normalization": (0.5, 0.0)}, ValueError, "positive deviations"),
        ({"saliency": torch.zeros(3, 8, 7)}, ValueError, r"saliency: got \(3, 8, 7\); expected a tensor \(3, 7, 8\)"),
        ({"saliency": torch.zeros(2, 7, 8)}, ValueError, r"saliency: got \(2, 7, 8\)"),
        ({"saliency": [[0.0]]}, ValueError, "saliency: got list"),
        ({"saliency": torch.full((3, 7, 8), torch.nan)}, ValueError, r"saliency: maps \[0, 1, 2\] hold NaN"),
        ({"batch_size": 0}, ValueError, "batch_size: got 0"),
        ({"ties": "first"}, ValueError, "ties: got 'first'; expected reading, random or together"),
        ({"ties": "random", "seed": -1}, ValueError, "seed = -1"),
        ({"score": "softmax"}, ValueError, "score: got 'softmax'"),
        ({"target": 3}, ValueError, "target: got 3, but the model has 3 classes"),
        ({"target": None}, ValueError, "target: got None"),
        ({"inputs": torch.zeros(2, 7, 8)}, ValueError, r"inputs: got shape \(2, 7, 8\)"),
        ({"inputs": torch.zeros(3, 2, 7, 8, dtype=torch.int64)}, TypeError, "inputs: got torch.int64"),
        ({"model": nn.Sequential(classifier(), nn.Softmax(1))}, ValueError, "probabilities already"),
        ({"model": lambda x: x}, TypeError, "model is a function"),
    ],
)
def test_bad_arguments(change, error, message):
    x, saliency = batch()
    arguments = {"model": classifier(), "inputs": x, "saliency": saliency, "target": 1} | change
    with pytest.raises(error, match=message):
        insertion_deletion(**arguments)


def test_blur_of_a_small_image_and_logits_that_are_not_finite():
    x = torch.rand(1, 1, 5, 9)
    with pytest.raises(ValueError, match=r'"blur" for images of \(5, 9\); expected at least 6 pixels per side'):
        insertion_deletion(Mean(), x, x[0], baseline="blur", steps=3)
    insertion_deletion(Mean(), torch.rand(1, 1, 6, 6), torch.rand(1, 6, 6), baseline="blur", steps=3)
    broken, (x, saliency) = classifier(), batch()
    with torch.no_grad():
        broken[-1].bias[0] = torch.nan
    with pytest.raises(ValueError, match="outputs hold NaN"):
        insertion_deletion(broken, x, saliency, 1)
