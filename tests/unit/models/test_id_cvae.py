"""ID-CVAE (paper 1): its layers, loss and eq. (1), each rewritten slowly."""

import math

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as oracle_kl

from xai_utils.models.id_cvae import (
    IDCVAE,
    SameConv2d,
    SameConvTranspose2d,
    kl_divergence,
    reconstruction_loss,
)


@pytest.fixture
def model():
    torch.manual_seed(3)
    return IDCVAE(latent_dim=5, n_classes=4, image_size=13, widths=(3, 4, 5)).double()


@pytest.fixture
def images():
    return torch.rand(7, 1, 13, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("size", [7, 8, 13, 28])
def test_same_convolution_is_the_padded_sum_over_its_window(size):
    torch.manual_seed(size)
    layer = SameConv2d(2, 3).double()
    x = torch.randn(1, 2, size, size, dtype=torch.float64)
    out = math.ceil(size / 2)
    before = max((out - 1) * 2 + 4 - size, 0) // 2  # SAME: the odd pixel of padding goes to the far edge
    expected = torch.zeros(1, 3, out, out, dtype=torch.float64)
    for o in range(3):
        for i in range(out):
            for j in range(out):
                total = layer.bias[o].item()
                for c in range(2):
                    for u in range(4):
                        for v in range(4):
                            row, column = 2 * i + u - before, 2 * j + v - before
                            if 0 <= row < size and 0 <= column < size:
                                total += layer.weight[o, c, u, v].item() * x[0, c, row, column].item()
                expected[0, o, i, j] = total
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


def test_same_transposed_convolution_spreads_each_pixel_over_its_window():
    torch.manual_seed(0)
    layer = SameConvTranspose2d(2, 1, size=7).double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    expected = torch.full((10, 10), layer.bias.item(), dtype=torch.float64)
    for c in range(2):
        for i in range(4):
            for j in range(4):
                expected[2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += x[0, c, i, j] * layer.weight[c, 0]
    torch.testing.assert_close(layer(x)[0, 0], expected[1:8, 1:8], rtol=0, atol=1e-12)


def test_the_papers_settings_are_the_defaults():
    model = IDCVAE()
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    assert model.latent_dim == 16
    assert len(convolutions) == 6
    assert {m.kernel_size for m in convolutions} == {(4, 4)}
    assert {m.negative_slope for m in model.modules() if isinstance(m, torch.nn.LeakyReLU)} == {0.01}


def test_decoder_sees_the_label_as_one_more_linear_input(model):
    """Embedding + Linear is the Linear layer of the concatenation [z, one-hot l]."""
    z = torch.randn(6, 5, dtype=torch.float64)
    label = torch.tensor([0, 1, 2, 3, 1, 0])
    weight = torch.cat([model.latent_input.weight, model.label_input.weight.T], dim=1)
    joined = torch.cat([z, torch.nn.functional.one_hot(label, 4).double()], dim=1)
    expected = model.decoder(joined @ weight.T + model.latent_input.bias)
    torch.testing.assert_close(model.decode_logits(z, label), expected)
    torch.testing.assert_close(model.decode(z, label), expected.sigmoid())


def test_the_encoder_never_sees_the_label(model, images):
    mean, _ = model.encode(images)
    a, b = model(images, 0), model(images, 1)
    torch.testing.assert_close(model.encode(images)[0], mean)
    assert (a - b).abs().max() > 1e-4


def test_kl_divergence_is_torch_distributions_own():
    generator = torch.Generator().manual_seed(1)
    mean, log_var = torch.randn(2, 9, 16, dtype=torch.float64, generator=generator)
    oracle = oracle_kl(Normal(mean, (0.5 * log_var).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_divergence(mean, log_var), oracle, rtol=0, atol=1e-6)
    for row in range(9):
        slow = sum(
            0.5 * (m**2 + math.exp(s) - 1 - s) for m, s in zip(mean[row].tolist(), log_var[row].tolist(), strict=True)
        )
        assert kl_divergence(mean, log_var)[row].item() == pytest.approx(slow, abs=1e-10)


def test_reconstruction_loss_is_the_summed_cross_entropy(images):
    logits = torch.randn(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 3
    for row in range(len(images)):
        slow = 0.0
        for s, x in zip(logits[row].flatten().tolist(), images[row].flatten().tolist(), strict=True):
            p = 1 / (1 + math.exp(-s))
            slow -= x * math.log(p) + (1 - x) * math.log(1 - p)
        assert reconstruction_loss(logits, images)[row].item() == pytest.approx(slow, abs=1e-9)


def test_eq_1_is_the_label_of_least_reconstruction_loss(model, images):
    losses = torch.empty(len(images), 4, dtype=torch.float64)
    with torch.no_grad():
        for row in range(len(images)):
            mean, _ = model.encode(images[row : row + 1])
            for label in range(4):
                picture = model.decode(mean, label)
                losses[row, label] = torch.nn.functional.binary_cross_entropy(
                    picture, images[row : row + 1], reduction="sum"
                )
    torch.testing.assert_close(model.label_losses(images), losses, rtol=0, atol=1e-6)
    torch.testing.assert_close(model.label_losses(images, batch_size=2), losses, rtol=0, atol=1e-6)
    assert model.predict(images).tolist() == losses.argmin(dim=1).tolist()


def test_loss_is_kl_plus_reconstruction_of_a_noisy_latent(model, images):
    label = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    parts = model.loss(images, label, torch.Generator().manual_seed(11))
    mean, log_var = model.encode(images)
    noise = torch.randn(mean.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(11))
    picture = model.decode(mean + (log_var / 2).exp() * noise, label)
    reconstruction = torch.nn.functional.binary_cross_entropy(picture, images, reduction="sum") / 7
    kl = oracle_kl(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).sum() / 7
    torch.testing.assert_close(parts["reconstruction"], reconstruction, rtol=1e-9, atol=0)
    torch.testing.assert_close(parts["kl"], kl, rtol=1e-9, atol=0)
    torch.testing.assert_close(parts["loss"], reconstruction + kl, rtol=1e-9, atol=0)
    assert set(parts) == {"loss", "kl", "reconstruction"}


def test_contrast_is_the_cross_entropy_of_eq_1_on_an_eighth_of_the_batch(model):
    images = torch.rand(16, 1, 13, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    label = torch.arange(16) % 4
    parts = model.loss(images, label, torch.Generator().manual_seed(0), contrast=2.5)
    losses = model.label_losses(images[:2])
    expected = 0.0
    for row in range(2):
        weights = [math.exp(-(v - losses[row].min().item())) for v in losses[row].tolist()]
        expected -= math.log(weights[label[row]] / sum(weights)) / 2
    assert parts["contrast"].item() == pytest.approx(2.5 * expected, rel=1e-9)
    torch.testing.assert_close(parts["loss"], parts["kl"] + parts["reconstruction"] + parts["contrast"])


def test_training_lowers_the_loss_and_learns_to_use_the_label():
    """Two classes of stripes: after a few steps eq. (1) tells them apart, so the gradient is the right one."""
    torch.manual_seed(0)
    x = torch.zeros(64, 1, 12, 12)
    label = torch.arange(64) % 2
    x[label == 0, :, ::2] = 1
    x[label == 1, :, :, ::2] = 1
    model = IDCVAE(latent_dim=2, n_classes=2, image_size=12, widths=(8, 8, 8))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = model.loss(x, label, torch.Generator().manual_seed(0))["loss"].item()
    for step in range(60):
        optimizer.zero_grad()
        loss = model.loss(x, label, torch.Generator().manual_seed(step))["loss"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * first
    assert (model.predict(x) == label).float().mean() == 1


@pytest.mark.parametrize("call", ["encode", "predict", "forward"])
def test_images_of_another_shape_are_refused_with_both_shapes(model, call):
    wrong = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    arguments = (wrong, 0) if call == "forward" else (wrong,)
    with pytest.raises(ValueError, match=r"\(2, 1, 28, 28\).*\(N, 1, 13, 13\)"):
        getattr(model, call)(*arguments)


def test_non_finite_images_are_refused(model, images):
    images[2, 0, 3, 3] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.predict(images)


@pytest.mark.parametrize("label", [-1, 4, torch.tensor([0, 9])])
def test_a_label_that_the_model_lacks_is_named(model, label):
    with pytest.raises(ValueError, match=r"label (-1|4|9) is not one of this model's 4"):
        model.decode(torch.zeros(2, 5, dtype=torch.float64), label)


@pytest.mark.parametrize("arguments", [{"latent_dim": 0}, {"n_classes": 1}, {"image_size": 4}])
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match="expected latent_dim"):
        IDCVAE(**arguments)
