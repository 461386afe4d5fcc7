"""Morphing (paper 1, eq. 2): prototypes, the straight path, the path along the data."""

import math
from itertools import pairwise

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from xai_utils.explain.morphing import class_prototypes, decode_path, morph, path_along_data, straight_path
from xai_utils.models.id_cvae import IDCVAE


@pytest.fixture
def model():
    torch.manual_seed(1)
    model = IDCVAE(latent_dim=3, n_classes=3, image_size=9, widths=(3, 3, 3)).double()
    for weight in model.parameters():
        weight.data.mul_(3)  # an untrained decoder hardly looks at its latent: make it look
    return model


@pytest.fixture
def training():
    images = torch.rand(20, 1, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return images, torch.arange(20) % 3


@pytest.fixture
def prototype(model, training):
    return class_prototypes(model, [training])


def batches(training, size):
    return list(zip(training[0].split(size), training[1].split(size), strict=True))


@pytest.mark.parametrize("size", [1, 7, 20])
def test_prototype_is_the_mean_encoding_of_the_class(model, training, size):
    images, labels = training
    result = class_prototypes(model, batches(training, size))
    for label in range(3):
        codes = [model.encode(images[i : i + 1])[0][0] for i in range(20) if labels[i] == label]
        slow = torch.stack(codes).sum(0) / len(codes)
        torch.testing.assert_close(result[label], slow, rtol=0, atol=1e-12)


def test_prototypes_need_one_pass_over_the_loader_only(model, training):
    once = iter(batches(training, 6))
    class_prototypes(model, once)
    assert next(once, None) is None


def test_a_class_without_training_images_is_named(model, training):
    images, labels = training
    with pytest.raises(ValueError, match=r"no training image for class\(es\) \[1\]"):
        class_prototypes(model, [(images[labels != 1], labels[labels != 1])])


@pytest.mark.parametrize("n", [1, 2, 9])
def test_morph_is_eq_2_decoded_with_the_label(model, training, prototype, n):
    images, _ = training
    label = torch.tensor([2, 0, 1, 1])
    result = morph(model, images[:4], label, prototype, steps=n)
    assert result.shape == (4, n + 1, 1, 9, 9)
    for row in range(4):
        z_0, z_n = model.encode(images[row : row + 1])[0][0], prototype[label[row]]
        for i in range(n + 1):
            z_i = z_0 if i == 0 else z_n if i == n else z_0 + (i / n) * (z_n - z_0)
            expected = model.decode(z_i[None], label[row])[0]
            torch.testing.assert_close(result[row, i], expected, rtol=0, atol=1e-12)


def test_the_last_frame_is_the_same_picture_for_every_input_of_a_class(model, training, prototype):
    frames = morph(model, training[0], 1, prototype, steps=4)
    torch.testing.assert_close(frames[:, -1], frames[:1, -1].expand_as(frames[:, -1]))
    assert (frames[0, 0] - frames[1, 0]).abs().max() > 1e-6


def test_morph_refuses_what_it_cannot_explain(model, training, prototype):
    images = training[0]
    with pytest.raises(ValueError, match="at least 1 step"):
        morph(model, images, 0, prototype, steps=0)
    with pytest.raises(ValueError, match=r"prototype has shape \(3,\).*\(3, 3\)"):
        morph(model, images, 0, prototype[0])
    with pytest.raises(ValueError, match=r"labels \[3\]: expected 0 … 2"):
        morph(model, images, 3, prototype)
    with pytest.raises(ValueError, match="NaN or infinite"):
        morph(model, images * float("nan"), 0, prototype)


def ring(n=200):
    angle = torch.linspace(0, 1.5 * torch.pi, n, dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_path_along_data_follows_a_ring_that_the_straight_line_would_cut():
    codes = ring()
    start = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    goal = torch.tensor([0.0, -1.0], dtype=torch.float64)
    path = path_along_data(start, goal, codes, steps=12, neighbours=4)
    straight = straight_path(start, goal[None], 12)
    radius = path.norm(dim=-1)
    assert radius.min() > 0.97  # stays on the ring
    assert straight.norm(dim=-1).min() < 0.75
    torch.testing.assert_close(path[0, 0], start[0])
    torch.testing.assert_close(path[0, -1], goal)
    steps = (path[0, 1:] - path[0, :-1]).norm(dim=-1)
    assert steps.max() / steps.min() < 1.1  # evenly spaced


def test_path_along_data_is_never_farther_from_the_data_than_half_its_longest_edge():
    generator = torch.Generator().manual_seed(4)
    codes = torch.randn(150, 4, dtype=torch.float64, generator=generator)
    start = torch.randn(6, 4, dtype=torch.float64, generator=generator)
    paths = path_along_data(start, codes.mean(0), codes, steps=20, neighbours=6)
    straight = straight_path(start, codes.mean(0).expand(6, 4), 20)
    tree = NearestNeighbors(n_neighbors=1).fit(codes.numpy())
    near = tree.kneighbors(paths[:, 1:-1].reshape(-1, 4).numpy())[0]
    direct = tree.kneighbors(straight[:, 1:-1].reshape(-1, 4).numpy())[0]
    assert near.mean() < 0.8 * direct.mean()
    assert torch.isfinite(paths).all()


def test_path_along_data_is_the_cheapest_chain_of_squared_steps_evenly_spaced():
    generator = torch.Generator().manual_seed(6)
    codes = torch.randn(40, 2, dtype=torch.float64, generator=generator)
    start = 1.5 * torch.randn(6, 2, dtype=torch.float64, generator=generator)
    path = path_along_data(start, codes.mean(0), codes, steps=7, neighbours=4)
    nodes = [*codes.tolist(), codes.mean(0).tolist()]  # the goal is the last one

    def nearest(point, candidates):
        return sorted(candidates, key=lambda node: math.dist(point, nodes[node]))[:4]

    edges = [(i, j) for i in range(41) for j in nearest(nodes[i], {*range(41)} - {i})]
    cost, after = [math.inf] * 40 + [0.0], {}
    for _ in nodes:  # Bellman and Ford's rounds
        for i, j in edges + [(j, i) for i, j in edges]:
            if (total := cost[j] + math.dist(nodes[i], nodes[j]) ** 2) < cost[i]:
                cost[i], after[i] = total, j
    for row, first in enumerate(start.tolist()):
        node = min(nearest(first, range(41)), key=lambda node: math.dist(first, nodes[node]) ** 2 + cost[node])
        chain = [first, nodes[node]]
        while node != 40:
            node = after[node]
            chain.append(nodes[node])
        lengths = [math.dist(a, b) for a, b in pairwise(chain)]
        for i in range(8):
            left, leg = sum(lengths) * i / 7, 0
            while leg < len(lengths) - 1 and left > lengths[leg]:
                left, leg = left - lengths[leg], leg + 1
            expected = torch.lerp(*torch.tensor(chain[leg : leg + 2], dtype=torch.float64), left / lengths[leg])
            torch.testing.assert_close(path[row, i], expected, rtol=0, atol=1e-9)


def test_path_along_data_where_the_graph_has_two_parts_goes_straight_between_them():
    left = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.1
    codes = torch.cat([left, left + 50])
    path = path_along_data(torch.zeros(1, 2, dtype=torch.float64), torch.full((2,), 50.0).double(), codes, 5, 3)
    torch.testing.assert_close(path[0, -1], torch.full((2,), 50.0, dtype=torch.float64))
    assert torch.isfinite(path).all()


def test_path_along_data_needs_more_codes_than_neighbours():
    codes = torch.zeros(4, 2)
    with pytest.raises(ValueError, match="4 training encodings for 4 neighbours"):
        path_along_data(codes[:1], codes[0], codes, steps=3, neighbours=4)


def test_twins_among_the_codes_do_not_cut_the_graph():
    codes = ring(60).repeat(2, 1)
    path = path_along_data(codes[:1], codes[59], codes, steps=8, neighbours=5)
    assert path.norm(dim=-1).min() > 0.9


def test_decode_path_decodes_every_frame_with_its_own_rows_label(model):
    path = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    frames = decode_path(model, path, torch.tensor([2, 0]))
    torch.testing.assert_close(frames[0, 3], model.decode(path[0, 3:4], 2)[0])
    torch.testing.assert_close(frames[1, 1], model.decode(path[1, 1:2], 0)[0])
