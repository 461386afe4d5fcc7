"""C1C against a flood fill in exact fractions, SciPy's labels, and each choice that the paper leaves open."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage.measure import label

from xai_utils.explain.components import c1c

CROSS = ndimage.generate_binary_structure(2, 1)


def random_maps(n, height, width, step=8):
    """Signed maps with several peaks, on a grid of values so coarse that peaks and areas tie."""
    random = torch.Generator().manual_seed(5)
    maps = torch.randn(n, height, width, dtype=torch.float64, generator=random)
    return maps.mul(step / 2).round().clamp(-step, step).div(step)


# the four steps, slowly: lists of fractions, one cell at a time


def slow_shrink(rows, size):
    def ends(length):
        cells = min(size, length)
        return [(i * length // cells, -(-(i + 1) * length // cells)) for i in range(cells)]

    return [
        [sum(rows[y][x] for y in range(*ys) for x in range(*xs)) / ((ys[1] - ys[0]) * (xs[1] - xs[0])) for xs in across]
        for across in [ends(len(rows[0]))]
        for ys in ends(len(rows))
    ]


def slow_components(inside, connectivity):
    """Lists of cells, in reading order of their first one."""
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)] + ([(1, 1), (1, -1), (-1, 1), (-1, -1)] if connectivity == 8 else [])
    seen, components = set(), []
    for start in [(y, x) for y, row in enumerate(inside) for x, value in enumerate(row) if value]:
        if start in seen:
            continue
        seen.add(start)
        component, waiting = [], [start]
        while waiting:
            y, x = waiting.pop()
            component.append((y, x))
            for dy, dx in steps:
                cell = (y + dy, x + dx)
                on_grid = 0 <= cell[0] < len(inside) and 0 <= cell[1] < len(inside[0])
                if on_grid and inside[cell[0]][cell[1]] and cell not in seen:
                    seen.add(cell)
                    waiting.append(cell)
        components.append(component)
    return components


def slow_enlarge(cells, height, width):
    def neighbours(i, length, n):
        centre = min(max((i + Fraction(1, 2)) * n / length - Fraction(1, 2), 0), n - 1)
        low = int(centre)
        return [(low, 1 - (centre - low)), (min(low + 1, n - 1), centre - low)]

    return [
        [
            sum(cells[a][b] * u * v for a, u in neighbours(y, height, len(cells)) for b, v in across[x])
            for x in range(width)
        ]
        for across in [[neighbours(x, width, len(cells[0])) for x in range(width)]]
        for y in range(height)
    ]


def slow_c1c(saliency, size, threshold, connectivity, keep):
    """C1C of one map (H, W), how many components it had, and whether the last choice among them was by a tie."""
    small = slow_shrink([[Fraction(value) for value in row] for row in saliency.tolist()], size)
    values = [value for row in small for value in row]
    level = sum(values) / len(values) if threshold == "mean" else Fraction(threshold)
    components = slow_components([[value > 0 and value >= level for value in row] for row in small], connectivity)
    peaks = [max(small[y][x] for y, x in component) for component in components]
    left, kept = list(range(len(components))), set()
    for _ in range(min(keep, len(components))):
        highest = [i for i in left if peaks[i] == max(peaks[j] for j in left)]
        largest = [i for i in highest if len(components[i]) == max(len(components[j]) for j in highest)]
        left.remove(largest[0])
        kept.update(components[largest[0]])
    tied = len(components) > keep and len(highest) > 1
    cells = [[v if (y, x) in kept else Fraction(0) for x, v in enumerate(row)] for y, row in enumerate(small)]
    enlarged = slow_enlarge(cells, *saliency.shape)
    enlarged = torch.tensor([[float(value) for value in row] for row in enlarged], dtype=torch.float64)
    return enlarged, len(components), tied


@pytest.mark.parametrize("threshold", ["mean", 0.25])
@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize(("height", "width"), [(7, 7), (14, 28), (17, 11), (5, 16), (4, 3)])
def test_a_flood_fill_in_fractions_on_maps_with_several_peaks_and_ties(height, width, connectivity, threshold):
    maps, several, ties = random_maps(12, height, width, step=4), 0, 0
    for keep in (1, 2, 3):
        got = c1c(maps, 7, threshold, connectivity, keep)
        for saliency, mine in zip(maps, got, strict=True):
            expected, count, tied = slow_c1c(saliency, 7, threshold, connectivity, keep)
            torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
            several, ties = several + (count > keep), ties + tied
    assert several >= 4
    if (height, width) == (7, 7):
        assert ties >= 4


@pytest.mark.parametrize(("connectivity", "structure"), [(4, CROSS), (8, np.ones((3, 3)))])
def test_components_are_those_of_scipy_in_the_same_order(connectivity, structure):
    maps, several = random_maps(40, 28, 28, step=64), 0
    got = c1c(maps, threshold=0.5, connectivity=connectivity)
    for saliency, mine in zip(maps.numpy(), got.numpy(), strict=True):
        inside = saliency >= 0.5
        theirs, count = ndimage.label(inside, structure)
        np.testing.assert_array_equal(label(inside, connectivity={4: 1, 8: 2}[connectivity]), theirs)
        peaks = ndimage.maximum(saliency, theirs, range(1, count + 1))
        areas = ndimage.sum_labels(inside, theirs, range(1, count + 1))
        first = max(range(count), key=lambda i: (peaks[i], areas[i], -i))
        np.testing.assert_array_equal(mine, np.where(theirs == first + 1, saliency, 0))
        several += count > 5
    assert several == 40


def test_the_papers_sizes_224_to_28_and_back():
    """Blocks of 8 × 8 by reshaping, the component by hand, and torch's interpolation."""
    random = torch.Generator().manual_seed(6)
    maps = 0.1 * torch.rand(1, 224, 224, dtype=torch.float64, generator=random)
    maps[0, 40:48, 64:120] += 1.0  # cells: row 5, columns 8 … 14
    maps[0, 160:200, 160:200] += 0.9  # larger and of the larger sum, and lower
    cells = maps.reshape(1, 28, 8, 28, 8).mean((2, 4))
    kept = torch.zeros_like(cells)
    kept[0, 5, 8:15] = cells[0, 5, 8:15]
    expected = F.interpolate(kept[:, None], (224, 224), mode="bilinear", align_corners=False)[:, 0]
    got = c1c(maps)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    assert torch.equal(got, c1c(maps, size=28, threshold="mean", connectivity=8, keep=1))
    assert got.unique().numel() > 100
    shares = (got > 0).nonzero()[:, 1:]
    assert shares.amin(0).tolist() == [36, 60]  # it fades out over half a cell, 4 pixels, and is 0 beyond
    assert shares.amax(0).tolist() == [51, 123]


# what the paper leaves open


def grid(*rows, dtype=torch.float64):
    return torch.tensor([[[float(value) for value in row.split()] for row in rows]], dtype=dtype)


def test_shrinking_takes_the_mean_under_a_cell_so_a_lone_noisy_pixel_does_not_win():
    maps = torch.zeros(1, 16, 16, dtype=torch.float64)
    maps[0, 1, 1] = 8.0  # its cell: 8 / 16
    maps[0, 8:12, 8:12] = 1.0
    got = c1c(maps, size=4)
    assert got[0, 9, 9] > 0
    assert not got[0, :4, :4].any()


def test_a_map_smaller_than_size_is_not_enlarged_on_its_way_down():
    maps = grid("1 0 2 2", "0 0 0 2")
    assert torch.equal(c1c(maps), grid("0 0 2 2", "0 0 0 2"))
    tall = torch.zeros(1, 40, 3, dtype=torch.float64)
    tall[0, 10:20, 2] = 1.0  # 20 cells down, 3 across
    expected = torch.zeros(1, 20, 3, dtype=torch.float64)
    expected[0, 5:10, 2] = 1.0
    expected = F.interpolate(expected[:, None], (40, 3), mode="bilinear", align_corners=False)[:, 0]
    assert torch.equal(c1c(tall, size=20), expected)


def test_a_cell_equal_to_the_threshold_is_inside():
    maps = grid("4 2 0", "0 2 0", "0 1 9", "0 0 0")  # the mean is 1.5
    assert torch.equal(c1c(maps, threshold=2.0, connectivity=4), grid("0 0 0", "0 0 0", "0 0 9", "0 0 0"))
    assert torch.equal(c1c(maps, threshold=2.0), grid("4 2 0", "0 2 0", "0 0 9", "0 0 0"))
    assert torch.equal(c1c(maps, threshold=2.001, keep=9), grid("4 0 0", "0 0 0", "0 0 9", "0 0 0"))
    assert torch.equal(c1c(grid("3 2 1", "4 0 2"), connectivity=4), grid("3 2 0", "4 0 0"))  # the mean is 2


def test_a_number_is_a_value_of_the_shrunken_map():
    maps = torch.zeros(1, 8, 8, dtype=torch.float64)
    maps[0, ::2, ::2] = 4.0  # cells of 1 …
    maps[0, :4, :4] = 4.0  # … and one of 4
    lone = torch.zeros(1, 2, 2, dtype=torch.float64)
    lone[0, 0, 0] = 4.0
    expected = F.interpolate(lone[:, None], (8, 8), mode="bilinear", align_corners=False)[:, 0]
    assert torch.equal(c1c(maps, size=2), expected)  # the mean is 1.75
    assert torch.equal(c1c(maps, size=2, threshold=1.001, keep=4), expected)
    assert (c1c(maps, size=2, threshold=1) >= 1).all()
    assert torch.equal(c1c(maps, size=2, threshold=4), expected)
    assert not c1c(maps, size=2, threshold=4.001).any()


def test_the_highest_cell_decides_and_not_sum_or_area():
    maps = grid("5 5 5 5 5", "5 5 5 5 5", "0 0 0 0 0", "0 0 6 0 0", "0 0 0 0 0")
    assert torch.equal(c1c(maps), grid("0 0 0 0 0", "0 0 0 0 0", "0 0 0 0 0", "0 0 6 0 0", "0 0 0 0 0"))


def test_of_equal_peaks_the_larger_component_then_the_first_in_reading_order():
    row = "0 0 0 0 0"
    larger = grid("6 0 0 0 0", row, "0 0 0 6 4")
    assert torch.equal(c1c(larger), grid(row, row, "0 0 0 6 4"))
    assert torch.equal(c1c(larger.flip(1)), grid("0 0 0 6 4", row, row))
    equal = grid("0 0 0 6 0", row, "6 0 6 0 6")
    assert torch.equal(c1c(equal), grid("0 0 0 6 0", row, row))
    assert torch.equal(c1c(equal, keep=2), grid("0 0 0 6 0", row, "6 0 0 0 0"))
    assert torch.equal(c1c(equal, keep=3), grid("0 0 0 6 0", row, "6 0 6 0 0"))


def test_two_cracks_the_second_needs_k_2_and_k_beyond_their_number_keeps_all():
    cracks = torch.zeros(2, 56, 56, dtype=torch.float64)
    cracks[:, 4:48, 8:12] = 1.0
    cracks[0, 4:48, 40:44] = 0.8
    cracks[1, 4:48, 40:44] = 1.2
    one, two = c1c(cracks), c1c(cracks, keep=2)
    assert [(one[i, :, 8:12] > 0).any().item() for i in (0, 1)] == [True, False]
    assert [(one[i, :, 40:44] > 0).any().item() for i in (0, 1)] == [False, True]
    for i in (0, 1):
        assert two[i, 20, 9] > 0.7
        assert two[i, 20, 41] > 0.7
    assert torch.equal(c1c(cracks, keep=7), two)


def test_diagonal_neighbours_belong_together_with_8_and_not_with_4():
    maps = grid("5 0 0 0", "0 4 0 0", "0 0 3 0", "0 0 0 0")
    assert torch.equal(c1c(maps), maps)
    assert torch.equal(c1c(maps, connectivity=4), grid("5 0 0 0", *["0 0 0 0"] * 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.0017, 999.9])
def test_a_flat_map_comes_back_at_exactly_its_value(dtype, value):
    """Also where cells overlap and where enlarging divides: its pixels must not get an order out of rounding."""
    maps = torch.full((1, 33, 57), value, dtype=dtype)
    assert torch.equal(c1c(maps), maps)
    assert torch.equal(c1c(maps, threshold=maps[0, 0, 0].item()), maps)
    assert not c1c(maps, threshold=1e5).any()


def test_a_map_that_is_flat_once_shrunken_stays_flat():
    cells = torch.tensor([[0.3, 0.0], [0.0, 0.1]], dtype=torch.float64).repeat(1, 20, 30)
    got = c1c(cells, size=10)
    assert (got.amin(), got.amax()) == (got[0, 0, 0], got[0, 0, 0])
    assert got[0, 0, 0] == pytest.approx(0.1, rel=1e-12)


@pytest.mark.parametrize("threshold", ["mean", 0, 0.5, -3.0])
@pytest.mark.parametrize("value", [0.0, -2.0])
def test_no_positive_cell_gives_zeros(value, threshold):
    maps = torch.full((1, 40, 30), value)
    maps[0, 3, 4] = value - 1  # negative relevance alone
    got = c1c(maps, threshold=threshold)
    assert torch.equal(got, torch.zeros_like(maps))
    assert not torch.signbit(got).any()
    assert torch.equal(c1c(torch.zeros(1, 40, 30), threshold=threshold), torch.zeros(1, 40, 30))


@pytest.mark.parametrize("threshold", ["mean", -5.0])
def test_negative_values_count_for_the_mean_and_are_never_kept(threshold):
    maps = grid("3 0 -1", "1 -9 -8", "-2 0 2")  # the mean is below 0
    assert torch.equal(c1c(maps, threshold=threshold), grid("3 0 0", "1 0 0", "0 0 0"))
    assert (c1c(random_maps(20, 30, 31), size=9, keep=5) >= 0).all()
    pulled = grid("4 2 0", "0 0 0", "0 0 -6")  # the mean is 0, of the positive cells alone it were 3
    assert torch.equal(c1c(pulled), grid("4 2 0", "0 0 0", "0 0 0"))


# the contract


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_same_dtype_detached_and_the_input_untouched(dtype):
    maps = random_maps(3, 20, 24).to(dtype).requires_grad_()
    before = maps.detach().clone()
    got = c1c(maps, size=8)
    assert (got.dtype, got.device, got.shape, got.requires_grad) == (dtype, maps.device, maps.shape, False)
    expected = c1c(before.double(), size=8)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-2 if got.element_size() == 2 else 1e-6)
    assert torch.equal(maps.detach(), before)
    small = maps.detach()[:, :6, :7].clone()
    c1c(small)
    assert torch.equal(small, maps[:, :6, :7])
    with torch.inference_mode():
        assert torch.equal(c1c(maps, size=8), got)


def test_each_map_on_its_own_whatever_its_scale_and_memory_layout():
    maps = random_maps(5, 18, 13)
    together = c1c(maps, size=6)
    scales = 2.0 ** torch.tensor([-40, -3, 0, 7, 60])[:, None, None]
    assert torch.equal(c1c(maps * scales, size=6), together * scales)
    for i in range(5):
        assert torch.equal(c1c(maps[i : i + 1], size=6)[0], together[i])
    assert torch.equal(c1c(maps.transpose(1, 2).contiguous().transpose(1, 2), size=6), together)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_same_device_and_values_on_a_gpu():
    maps = random_maps(5, 40, 33)
    got = c1c(maps.cuda(), size=10, keep=2)
    assert got.is_cuda
    torch.testing.assert_close(got.cpu(), c1c(maps, size=10, keep=2), rtol=0, atol=1e-12)


def with_value(value):
    maps = torch.ones(3, 5, 5)
    maps[1, 2, 3] = value
    return maps


@pytest.mark.parametrize(
    ("saliency", "error", "message"),
    [
        (torch.rand(28, 28), ValueError, r"got shape \(28, 28\); expected maps \(N, H, W\).*saliency\[None\]"),
        (torch.rand(1, 1, 28, 28), ValueError, r"got shape \(1, 1, 28, 28\); expected maps \(N, H, W\)"),
        (torch.rand(0, 28, 28), ValueError, r"got shape \(0, 28, 28\)"),
        (torch.rand(2, 0, 28), ValueError, r"got shape \(2, 0, 28\)"),
        (with_value(torch.nan), ValueError, r"saliency: maps \[1\] hold NaN or infinite"),
        (with_value(torch.inf), ValueError, r"saliency: maps \[1\] hold NaN or infinite"),
        (with_value(-torch.inf), ValueError, r"saliency: maps \[1\] hold NaN or infinite"),
        (torch.ones(1, 8, 8, dtype=torch.int64), TypeError, "got torch.int64; expected a floating-point tensor"),
        (torch.ones(1, 8, 8, dtype=torch.bool), TypeError, "got torch.bool"),
        (np.ones((1, 8, 8)), TypeError, "saliency: got ndarray"),
    ],
)
def test_wrong_maps(saliency, error, message):
    with pytest.raises(error, match=message):
        c1c(saliency)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": "median"}, "threshold: got 'median'; expected 'mean', or a finite number"),
        ({"threshold": None}, "threshold: got None"),
        ({"threshold": True}, "threshold: got True"),
        ({"threshold": float("nan")}, "threshold: got nan"),
        ({"threshold": float("inf")}, "threshold: got inf"),
        ({"connectivity": 6}, "connectivity: got 6; expected 4 or 8"),
        ({"connectivity": 1}, "connectivity: got 1; expected 4 or 8"),
        ({"connectivity": "8"}, "connectivity: got '8'"),
        ({"keep": 0}, "keep: got 0; expected an integer of at least 1"),
        ({"keep": -1}, "keep: got -1"),
        ({"keep": 1.0}, r"keep: got 1\.0"),
        ({"keep": True}, "keep: got True"),
        ({"size": 0}, "size: got 0; expected an integer of at least 1"),
        ({"size": (28, 28)}, r"size: got \(28, 28\)"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        c1c(torch.rand(1, 8, 8), **options)
