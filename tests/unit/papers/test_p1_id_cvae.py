"""Paper 1's measures of morphs, each rewritten slowly with a toy model whose answers are known by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xai_utils.explain.morphing import path_along_data, straight_path
from xai_utils.metrics import estimates, statistics
from xai_utils.models.id_cvae import IDCVAE
from xai_utils.papers import p1_id_cvae as paper

SIZE = 4


class Toy(torch.nn.Module):
    """E(x) = the image's mean, twice; D(z, l) = z₀ everywhere plus 0.1·l in the first column."""

    latent_dim, n_classes = 2, 3

    def encode(self, x):
        mean = x.flatten(1).mean(1, keepdim=True).repeat(1, 2)
        return mean, torch.zeros_like(mean)

    def decode(self, z, label):
        images = z[:, :1, None, None].expand(-1, 1, SIZE, SIZE).clone()
        images[..., 0] += 0.1 * torch.as_tensor(label).expand(len(z))[:, None, None]
        return images


class Band:
    """Realism = 1 + mean of the image, times (class + 1); odd above 3"""

    def realism(self, images, labels):
        return (1 + images.flatten(1).mean(1)) * (labels + 1)

    def odd(self, images, labels):
        return self.realism(images, labels) > 3.0


def judge(images):
    mean = images.flatten(1).mean(1)
    return torch.stack([torch.zeros_like(mean), 3 * mean, 1 - mean], dim=1)


def features(images):
    return torch.stack([images.flatten(1).mean(1), images[..., 0].flatten(1).mean(1)], dim=1)


@pytest.fixture
def case():
    x = torch.rand(5, 1, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    prototypes = torch.tensor([[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]], dtype=torch.float64)
    true = torch.tensor([0, 1, 2, 0, 1])
    predicted = torch.tensor([1, 2, 0, 2, 0])
    runner_up = torch.tensor([2, 1, 2, 0, 2])
    return x, prototypes, true, predicted, runner_up


def test_measures_are_those_of_a_slow_loop(case):
    x, prototypes, true, predicted, runner_up = case
    model, band, n = Toy(), Band(), 4
    paths = straight_path(model.encode(x)[0], prototypes[predicted], n)
    table = paper.morph_measures(model, judge, features, band, x, paths, true, predicted, runner_up)
    assert len(table) == 5
    for row in range(5):
        image, p = x[row : row + 1], int(predicted[row])

        def draw(i, label, row=row):
            return model.decode(paths[row, i : i + 1], torch.tensor([int(label)]))

        last = draw(n, p)
        sequences = {
            "morph": [draw(i, p) for i in range(1, n)],
            "true_label": [draw(i, true[row]) for i in range(1, n)],
            "runner_up": [draw(i, runner_up[row]) for i in range(1, n)],
            "blend": [image + (i / n) * (last - image) for i in range(1, n)],
        }
        for name, frames in sequences.items():
            probability = np.mean([judge(f).softmax(1)[0, p].item() for f in frames])
            realism = [band.realism(f, torch.tensor([p])).item() for f in frames]
            assert table[f"probability_{name}"][row] == pytest.approx(probability, abs=1e-12)
            assert table[f"realism_{name}"][row] == pytest.approx(np.mean(realism), abs=1e-12)
            if name == "morph":
                assert table.worst_realism[row] == pytest.approx(max(realism), abs=1e-12)
                assert table.odd_frames[row] == sum(r > 3.0 for r in realism)
        for name, label in (("distance_predicted", p), ("distance_true", int(true[row]))):
            distance = (features(draw(0, label)) - features(image)).norm().item()
            assert table[name][row] == pytest.approx(distance, abs=1e-12)
    assert table.odd_frames.between(1, 2).any()  # the case holds rows with some odd frames, not all


def test_measures_need_a_frame_between_the_ends(case):
    x, prototypes, true, predicted, runner_up = case
    paths = straight_path(Toy().encode(x)[0], prototypes[predicted], 1)
    with pytest.raises(ValueError, match="at least 3"):
        paper.morph_measures(Toy(), judge, features, Band(), x, paths, true, predicted, runner_up)


def test_ranking_is_least_and_second_least_loss():
    losses = torch.tensor([[3.0, 1.0, 2.0], [0.5, 9.0, 0.6]])
    predicted, runner_up = paper.label_ranking(losses)
    assert predicted.tolist() == [1, 0]
    assert runner_up.tolist() == [2, 2]


def test_clearest_mistake_prefers_the_papers_pair():
    losses = torch.tensor([[1.0, 5.0, 9.0], [7.0, 6.0, 5.0], [9.0, 8.0, 6.0], [0.0, 9.0, 9.0]])
    true = torch.tensor([1, 1, 1, 2])  # predicted 0, 2, 2, 0; margins 4, 1, 2, 9
    assert paper.clearest_mistake(losses, true, pair=(1, 2)) == 2
    assert paper.clearest_mistake(losses, true, pair=(0, 1)) == 3
    with pytest.raises(ValueError, match="no misclassified image"):
        paper.clearest_mistake(losses[:0], true[:0], pair=(1, 2))


def test_data_paths_take_each_classes_own_codes(case):
    x, prototypes, _, predicted, _ = case
    images = torch.rand(60, 1, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    images = images * 0.1 + labels[:, None, None, None] * 0.4  # class means near 0.05, 0.45, 0.85
    paths = paper.data_paths(Toy(), prototypes, x, predicted, (images, labels), steps=6, neighbours=3)
    start = Toy().encode(x)[0]
    torch.testing.assert_close(paths[:, 0], start)
    torch.testing.assert_close(paths[:, -1], prototypes[predicted])
    for row in range(5):
        codes = Toy().encode(images[labels == predicted[row]])[0]
        alone = path_along_data(start[row : row + 1], prototypes[predicted[row]], codes, 6, 3)
        torch.testing.assert_close(paths[row], alone[0], rtol=0, atol=1e-12)


def test_odd_frames_judges_each_row_by_its_own_class():
    frames = torch.full((2, 3, 1, SIZE, SIZE), 0.6)  # realism 1.6 for class 0, 3.2 for class 1
    frames[:, 2] = 0.2
    odd = paper.odd_frames(Band(), frames, torch.tensor([0, 1]))
    assert odd.tolist() == [[False, False, False], [True, True, False]]


def test_shifted_moves_each_image_by_so_many_pixels_at_most_and_loses_nothing_inside():
    images = torch.zeros(300, 1, 9, 9)
    images[:, 0, 4, 4] = 1
    moved, labels = paper.shifted((images, torch.arange(300)), torch.Generator().manual_seed(1), 2)
    places = {tuple(place) for place in moved[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(i, j) for i in range(2, 7) for j in range(2, 7)}
    assert labels.tolist() == list(range(300))
    again, _ = paper.shifted((images, labels), torch.Generator().manual_seed(1), 2)
    torch.testing.assert_close(moved, again)


def test_shifted_keeps_the_channels_of_an_image_together():
    images = torch.rand(8, 3, 7, 7, generator=torch.Generator().manual_seed(2))
    images = images[:, :1] * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    moved, _ = paper.shifted((images, torch.zeros(8)), torch.Generator().manual_seed(5), 1)
    torch.testing.assert_close(moved[:, 1], 2 * moved[:, 0])
    torch.testing.assert_close(moved[:, 2], 3 * moved[:, 0])


def test_layer_table_counts_every_parameter_once_and_leaves_no_hook():
    model = IDCVAE(latent_dim=4, n_classes=3, image_size=12, widths=(3, 4, 5))
    rows = paper.layers(model)
    assert sum(row[3] for row in rows) == sum(p.numel() for p in model.parameters())
    assert rows[0] == ("encoder", "SameConv2d", "3×6×6", 3 * 16 + 3)
    assert rows[-1][2] == "1×12×12"
    assert not any(module._forward_hooks for module in model.modules())


def test_in_batches_gives_the_outputs_of_one_pass():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    images = torch.rand(7, 1, 2, 2)
    torch.testing.assert_close(paper.in_batches(network, images, 3), network(images).detach())


def test_every_rater_sees_every_image_once_with_each_method():
    sheet = paper.study_sheet(["a", "b", "c"], ["morph", "LIME"], raters=2, seed=0)
    for _, rows in sheet.groupby("rater"):
        assert sorted(zip(rows.image, rows.method)) == sorted((i, m) for i in "abc" for m in ("morph", "LIME"))
        assert rows.trial.tolist() == list(range(1, 7))
    first, second = (rows[["image", "method"]].values.tolist() for _, rows in sheet.groupby("rater"))
    assert first != second
    assert sheet.rating.isna().all()
    assert sheet.equals(paper.study_sheet(["a", "b", "c"], ["morph", "LIME"], raters=2, seed=0))


def test_shares_and_means_keep_groups_together():
    hits, groups = np.repeat([True, False, True, True, False], 6), np.repeat([f"p{i}" for i in range(5)], 6)
    alone, together = SimpleNamespace(groups=None), SimpleNamespace(groups=groups)
    assert paper.share(hits, alone, 3) == statistics.proportion(18, 30)
    assert paper.share(hits, together, 3) == estimates.mean(hits, groups, 3)
    assert paper.mean_over(alone, 3, hits * 2.0) == statistics.bootstrap(hits * 2.0, seed=3)
    found = paper.mean_over(together, 3, hits * 2.0)
    assert found == estimates.mean(hits * 2.0, groups, 3)
    assert found.high - found.low > 1.5 * (
        paper.mean_over(alone, 3, hits * 2.0).high - paper.mean_over(alone, 3, hits * 2.0).low
    )
    assert paper.mean_over(alone, 3, hits[:1] * 2.0).value is None  # a single mistake says nothing, and is no error
