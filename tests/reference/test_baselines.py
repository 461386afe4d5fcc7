"""LIME, SHAP and integrated gradients against exact values: linear models, brute force, the libraries' own loops."""

import sys
from itertools import combinations
from math import factorial

import numpy as np
import pytest
import torch
from lime.lime_image import LimeImageExplainer
from scipy.stats import spearmanr
from torch import nn

from xai_utils import progress
from xai_utils.explain import RISE, IntegratedGradients, KernelShap, Lime, ShapPartition

SIZE = 8


def linear(channels=1, n_classes=3, size=SIZE):
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, n_classes)).double()


def curved(channels=1, n_classes=3):
    torch.manual_seed(6)
    hidden = nn.Linear(channels * SIZE * SIZE, 12)
    return nn.Sequential(nn.Flatten(), hidden, nn.Softplus(), nn.Linear(12, n_classes)).double()


def images(n=2, channels=1):
    return torch.rand(n, channels, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def contributions(model, x, target):
    """w_i x_i of a linear model, summed over channels: (N, H, W)."""
    return (model[1].weight.detach()[target].reshape(x.shape[1:]) * x).sum(1)


def over_cells(values, cells=4):
    """Sum within each cell of a regular grid, written into all of its pixels."""
    result, step = torch.zeros_like(values), values.shape[-1] // cells
    for i in range(0, values.shape[-1], step):
        for j in range(0, values.shape[-1], step):
            total = values[:, i : i + step, j : j + step].sum((1, 2))
            result[:, i : i + step, j : j + step] = total[:, None, None]
    return result


GRID = (torch.arange(SIZE)[:, None] // 2) * 4 + torch.arange(SIZE) // 2  # 4 × 4 cells of 2 × 2 pixels


@pytest.mark.parametrize("channels", [1, 3])
class TestLinearModel:
    """There the exact answer is known: what a pixel or segment adds, w·x."""

    def test_lime(self, channels):
        model, x = linear(channels), images(channels=channels)
        maps = Lime(model, segments=4, baseline=0.0, alpha=0.0, n_samples=200).attribute(x, 2)
        torch.testing.assert_close(maps, over_cells(contributions(model, x, 2)), rtol=0, atol=1e-8)

    def test_lime_against_the_mean_of_each_segment(self, channels):
        model, x = linear(channels), images(channels=channels)
        maps = Lime(model, segments=4, alpha=0.0, n_samples=200).attribute(x, 2)
        means = torch.stack([over_cells(x[:, c]) / 4 for c in range(channels)], 1)
        torch.testing.assert_close(maps, over_cells(contributions(model, x - means, 2)), rtol=0, atol=1e-8)

    def test_kernel_shap(self, channels):
        model, x = linear(channels), images(channels=channels)
        maps = KernelShap(model, segments=4, n_samples=100).attribute(x, 2)
        torch.testing.assert_close(maps, over_cells(contributions(model, x, 2)) / 4, rtol=0, atol=1e-8)

    def test_shap_partition(self, channels):
        model, x = linear(channels, size=4), images(2, channels)[:, :, :4, :4]
        maps = ShapPartition(model, max_evals=3000).attribute(x, 2)  # enough to reach every pixel
        torch.testing.assert_close(maps, contributions(model, x, 2), rtol=0, atol=1e-8)

    def test_integrated_gradients(self, channels):
        model, x = linear(channels), images(channels=channels)
        maps = IntegratedGradients(model, steps=3).attribute(x, 2)
        torch.testing.assert_close(maps, contributions(model, x, 2), rtol=0, atol=1e-6)  # captum's steps are float32


def test_lime_is_the_librarys_own():
    """Sampled with the same numbers, `LimeImageExplainer` as it comes gives the same coefficients."""
    model, x = curved(3), images(1, 3)
    seed = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(11)))
    library = LimeImageExplainer(kernel_width=0.25, feature_selection="none", random_state=seed)

    def classifier(pixels):
        return model(torch.from_numpy(np.moveaxis(pixels, 3, 1))).detach().numpy()

    expected = library.explain_instance(
        np.moveaxis(x[0].numpy(), 0, 2),
        classifier,
        labels=(1,),
        top_labels=None,
        num_samples=60,
        segmentation_fn=lambda _: GRID.numpy(),
    )
    maps = Lime(model, segments=4, n_samples=60, seed=11, batch_size=7).attribute(x, 1)
    for segment, weight in expected.local_exp[1]:
        assert maps[0][segment == GRID].tolist() == pytest.approx([weight] * 4, abs=1e-10)


def test_lime_formula():
    """Ridge of the score on the shown segments, weighted by √exp(−d²/k²), d the cosine distance to the image."""
    model, x, alpha, width = curved(), images(1), 0.7, 0.4
    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(3)))
    random.randint(0, 1000)  # the library first draws a seed for its segmentation
    shown = random.randint(0, 2, (50, 16))
    shown[0] = 1
    scores, weights = [], []
    for row in shown:
        masked = x[0, 0].clone()
        for segment in range(16):
            if row[segment] == 0:
                masked[segment == GRID] = 0.25
        scores.append(model(masked[None, None])[0, 1].item())
        distance = 1 - row.sum() / np.sqrt(row.sum() * 16)
        weights.append(np.sqrt(np.exp(-(distance**2) / width**2)))
    y, w = np.array(scores), np.array(weights)
    centred = shown - np.average(shown, axis=0, weights=w)
    gram = centred.T @ (w[:, None] * centred) + alpha * np.eye(16)
    coefficients = np.linalg.solve(gram, centred.T @ (w * (y - np.average(y, weights=w))))
    lime = Lime(model, segments=4, n_samples=50, alpha=alpha, kernel_width=width, baseline=0.25, seed=3)
    torch.testing.assert_close(lime.attribute(x, 1)[0], torch.from_numpy(coefficients)[GRID], rtol=0, atol=1e-9)


def test_kernel_shap_equals_brute_force_shapley_values():
    """All subsets of six uneven segments, another for each image, against an image as baseline."""
    model, x = curved(3), images(2, 3)
    labels = torch.stack([torch.arange(64).reshape(8, 8) // 11, torch.arange(64).reshape(8, 8) % 6]) * 10 - 3
    baseline = images(3, 3)[2]
    maps = KernelShap(model, segments=labels, n_samples=500, baseline=baseline).attribute(x, torch.tensor([2, 0]))
    for image, target, of_image, result in zip(x, (2, 0), labels, maps):
        names = of_image.unique().tolist()

        def value(shown, image=image, target=target, of_image=of_image):
            mask = torch.isin(of_image, torch.tensor(shown))
            return model(torch.where(mask, image, baseline)[None])[0, target].item()

        for segment in names:
            others, n = [name for name in names if name != segment], len(names)
            phi = 0.0
            for size in range(n):
                for subset in combinations(others, size):
                    share = factorial(size) * factorial(n - size - 1) / factorial(n)
                    phi += share * (value([*subset, segment]) - value(list(subset)))
            pixels = result[of_image == segment]
            assert pixels.tolist() == pytest.approx([phi / len(pixels)] * len(pixels), abs=1e-8)


def test_integrated_gradients_formula():
    model, x, baseline = curved(3), images(1, 3), 0.3
    total = torch.zeros_like(x)
    for step in range(400):  # midpoint rule
        point = (baseline + (step + 0.5) / 400 * (x - baseline)).requires_grad_()
        total += torch.autograd.grad(model(point)[0, 1], point)[0] / 400
    expected = ((x - baseline) * total).sum(1)
    maps = IntegratedGradients(model, baseline=baseline).attribute(x, 1)
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-6)


COMPLETE = {
    "KernelShap": lambda model, **options: KernelShap(model, segments=4, n_samples=60, **options),
    "ShapPartition": lambda model, **options: ShapPartition(model, max_evals=30, **options),
    "IntegratedGradients": lambda model, **options: IntegratedGradients(model, **options),
}
ALL = {**COMPLETE, "Lime": lambda model, **options: Lime(model, segments=4, n_samples=60, **options)}


@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize("baseline", [0.0, 0.4, "image"])
@pytest.mark.parametrize("name", COMPLETE)
def test_a_map_sums_to_the_difference_of_scores(name, baseline, score):
    model, x, targets = curved(3), images(2, 3), torch.tensor([2, 0])
    start = images(3, 3)[2] if baseline == "image" else torch.full_like(x[0], baseline)
    maps = COMPLETE[name](model, baseline=start if baseline == "image" else baseline, score=score).attribute(x, targets)

    def f(batch):
        outputs = model(batch).detach()
        return (outputs.softmax(1) if score == "probability" else outputs)[[0, 1], targets]

    difference = f(x) - f(start.expand_as(x))
    assert difference.abs().min() > 1e-4
    torch.testing.assert_close(maps.sum((1, 2)), difference, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
class TestAll:
    def test_does_not_depend_on_the_batch(self, name):
        model, x = curved(), images(3)
        explainer = ALL[name](model)
        maps = explainer.attribute(x, 1)
        for i in range(3):
            torch.testing.assert_close(explainer.attribute(x[i : i + 1], 1)[0], maps[i], rtol=0, atol=1e-12)

    def test_batch_size_bounds_what_the_model_sees(self, name):
        model, seen = curved(), []
        model.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
        expected = ALL[name](model, batch_size=10).attribute(images(1), 1)
        assert max(seen) == 10
        if name != "ShapPartition":  # its search goes on in batches
            torch.testing.assert_close(ALL[name](model, batch_size=3).attribute(images(1), 1), expected)

    def test_draws_no_progress_bar(self, name, capfd):
        ALL[name](curved()).attribute(images(1), 1)
        assert capfd.readouterr() == ("", "")

    def test_randomising_the_top_layer_changes_the_map(self, name):
        model, x = curved(), images(2)
        explainer = ALL[name](model)
        before, after = explainer.attribute(x, 1).flatten(1), []
        for _ in range(8):
            model[3].reset_parameters()
            maps = explainer.attribute(x, 1).flatten(1)
            after += [spearmanr(a, b)[0] for a, b in zip(before, maps)]
        assert abs(np.mean(after)) < 0.5

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"score": "logits"}, "score: got 'logits'"),
            ({"seed": -1}, "seed: got -1; expected an integer of 0 or more"),
            ({"batch_size": 0}, "batch_size: got 0; expected an integer of 1 or more"),
        ],
    )
    def test_wrong_settings(self, name, options, message):
        with pytest.raises(ValueError, match=message):
            ALL[name](curved(), **options)

    def test_a_probability_needs_two_outputs(self, name):
        with pytest.raises(ValueError, match="model with one output"):
            ALL[name](curved(n_classes=1), score="probability").attribute(images(), None)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: Lime(curved(), segments=4, n_samples=40, seed=seed),
        lambda seed: KernelShap(curved(), segments=4, n_samples=40, seed=seed),
    ],
    ids=["Lime", "KernelShap"],
)
def test_another_seed_draws_other_samples(make):
    first, again, other = (make(seed).attribute(images(1), 1) for seed in (1, 1, 2**40))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize(
    ("make", "channels", "message"),
    [
        (
            lambda m: KernelShap(m, segments=4, n_samples=31),
            1,
            "n_samples: got 31 for 16 segments; expected at least 32",
        ),
        (lambda m: Lime(m, segments=9), 1, "segments: got 9; expected 1 … 8 cells per side"),
        (lambda m: Lime(m, segments=torch.zeros(8, 7, dtype=int)), 1, r"segments: got .*\(8, 7\); expected integers"),
        (lambda m: KernelShap(m, segments=torch.zeros(8, 8)), 1, r"segments: got torch.float32"),
        (lambda m: KernelShap(m, segments=torch.zeros(1, 8, 8, dtype=int)), 1, r"segments: got .*\(1, 8, 8\)"),
        (lambda m: IntegratedGradients(m, baseline=torch.nan), 1, "baseline: got nan; expected a finite value"),
        (lambda m: ShapPartition(m, baseline=torch.zeros(8, 8)), 1, r"baseline: got shape \(8, 8\)"),
        (lambda m: Lime(m), 2, "got 2 channels; LIME takes images of one or three"),
        (lambda m: Lime(m, n_samples=0), 1, "n_samples: got 0"),
        (lambda m: ShapPartition(m, max_evals=1.5), 1, r"max_evals: got 1\.5"),
        (lambda m: IntegratedGradients(m, steps=0), 1, "steps: got 0"),
    ],
)
def test_settings_that_do_not_fit(make, channels, message):
    with pytest.raises(ValueError, match=message):
        make(curved(channels)).attribute(images(2, channels), 1)


@pytest.mark.parametrize("name", ["RISE", "Lime", "KernelShap", "IntegratedGradients"])
def test_a_bar_counts_the_changed_images_in_a_terminal_after_a_while(name, monkeypatch, capsys):
    makers = ALL | {"RISE": lambda model: RISE(model, n_masks=30)}
    monkeypatch.setattr(progress, "AFTER", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("XAI_PROGRESS", raising=False)
    explainer, x = makers[name](curved()), images(2)
    explainer.attribute(x, 1)
    total = 2 * next(getattr(explainer, n) for n in ("n_masks", "n_samples", "steps") if hasattr(explainer, n))
    assert f"/{total} " in capsys.readouterr().err
    monkeypatch.setenv("XAI_PROGRESS", "0")
    explainer.attribute(x, 1)
    assert capsys.readouterr().err == ""
