"""The Attention Branch Network against its formulas, and that LRP can walk it."""

from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from checks import as_trained
from torch import nn
from torch.utils.data import TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from xai_utils import training
from xai_utils.explain import LRP
from xai_utils.models import AttentionBranchNetwork, branch_loss, resnet18, resnet34, resnet50
from xai_utils.models.abn import Threshold


def images(n=2, height=20, width=28, channels=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, height, width, dtype=torch.float64, generator=generator)


def network(depth=18, n_classes=3, width=4, in_channels=2, **options):
    """A tiny one in evaluation mode, with BatchNorm as after training, and a map around 0.5."""
    torch.manual_seed(0)
    model = as_trained(AttentionBranchNetwork(depth, n_classes, width, in_channels, **options).double())
    with torch.no_grad():
        branch = model.attention
        scores = branch.map[:4](branch.reduce(branch.blocks(model.extractor(images(channels=in_channels)))))
        branch.map[4].running_mean.fill_(scores.mean())
        branch.map[4].running_var.fill_(scores.var())
        branch.map[4].bias.zero_()
    return model


# size: what the paper says of it


def on_no_device(**options):
    with torch.device("meta"):
        return AttentionBranchNetwork(**options).eval()


def test_parameters_beside_the_papers_32_million():
    count = {
        blocks: sum(p.numel() for p in on_no_device(blocks=blocks).parameters()) / 1e6 for blocks in (3, 7, 13, None)
    }
    assert count[None] == count[7] == pytest.approx(32.724208, abs=1e-9)  # 2.3 % above 32 M
    assert count[3] == pytest.approx(25.82, abs=0.01)
    assert count[13] == pytest.approx(60.29, abs=0.01)
    plain = 23.512130  # ResNet-50 with two classes; the rest is two bottlenecks of the branch, and what follows them
    assert count[7] - plain == pytest.approx(9.212078, abs=1e-9)


def test_multiply_adds_are_not_the_papers_92_billion():
    model = on_no_device()
    with FlopCounterMode(display=False) as counter:
        assert model(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 2)
        assert model.extractor(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 512, 28, 28)
    total, extractor = counter.get_total_flops() / 2e9, counter.flop_counts["AttentionBranchNetwork.extractor"]
    extractor = sum(extractor.values()) / 2e9 / 2  # it ran twice
    assert total - extractor == pytest.approx(11.3, abs=0.1)


# forward


def relu(x):
    return x.clamp(min=0)


def slow(state, x, blocks, theta=0.0, residual=False, max_pool=True):
    """Eq. (1) and (2) on ResNet-18, from a state dict: FE, AB and PB by formula; the gate cell by cell."""

    def convolution(name, x, **options):
        return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)

    def norm(name, x):
        part = {key: state[f"{name}.{key}"][None, :, None, None] for key in ("weight", "bias", "running_mean")}
        scale = 1 / (state[f"{name}.running_var"] + 1e-5).sqrt()[None, :, None, None]
        return (x - part["running_mean"]) * scale * part["weight"] + part["bias"]

    def block(name, x, stride=1):
        main = relu(norm(f"{name}.bn1", convolution(f"{name}.conv1", x, stride=stride, padding=1)))
        main = norm(f"{name}.bn2", convolution(f"{name}.conv2", main, padding=1))
        if f"{name}.downsample.0.weight" in state:
            x = norm(f"{name}.downsample.1", convolution(f"{name}.downsample.0", x, stride=stride))
        return relu(main + x)

    stride = {3: 2, 5: 2, 7: 2}  # of the first block of a stage
    x = relu(norm("extractor.bn1", convolution("extractor.conv1", x, stride=2, padding=3)))
    x = F.max_pool2d(x, 3, 2, 1)
    for number in range(1, blocks + 1):
        x = block(f"extractor.block{number}", x, stride.get(number, 1))
    h = x
    x = block("attention.blocks.1", block("attention.blocks.0", h))
    x = relu(norm("attention.reduce.1", convolution("attention.reduce.0", x)))
    if max_pool:
        x = F.max_pool2d(x, 3, 1, 1)
    hidden = relu(norm("attention.map.1", convolution("attention.map.0", x)))
    attention = 1 / (1 + (-norm("attention.map.4", convolution("attention.map.3", hidden))).exp())
    branch = convolution("attention.classes.0", x).mean((2, 3))
    gated = torch.zeros_like(h)
    for n, k, i, j in product(*map(range, h.shape)):
        alpha = float(attention[n, 0, i, j])
        alpha = 0.0 if alpha < theta else alpha
        gated[n, k, i, j] = (1 + alpha if residual else alpha) * h[n, k, i, j]
    x = gated
    for number in range(blocks + 1, 9):
        x = block(f"perception.block{number}", x, stride.get(number, 1))
    return x.mean((2, 3)) @ state["perception.fc.weight"].T + state["perception.fc.bias"], branch, attention


VARIANTS = [{}, {"theta": 0.5}, {"residual": True, "theta": 0.5}, {"max_pool": False}, {"blocks": 1}, {"blocks": 7}]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_forward_by_formula(options):
    model, x = network(**options), images()
    with torch.no_grad():
        found, expected = model.branches(x), slow(model.state_dict(), x, **{"blocks": 4, **options})
        for ours, formula in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, formula, rtol=1e-9, atol=1e-10)
        assert torch.equal(model(x), found.logits)
    below = found.attention < 0.5
    assert 0 < below.sum() < below.numel()  # so that θ = 0.5 does something, and leaves something


@pytest.mark.parametrize(
    ("depth", "blocks", "make"), [(18, 4, resnet18), (34, 7, resnet34), (50, 7, resnet50), (50, 8, resnet50)]
)
def test_without_its_gate_it_is_the_resnet(depth, blocks, make):
    class Open(nn.Module):
        def forward(self, features, attention):
            return features

    model = network(depth, blocks=blocks)
    expected = network(depth)
    assert (model.state_dict().keys() == expected.state_dict().keys()) == (blocks in (4, 7))  # the default
    model.gate = Open()
    resnet = make(3, 4, 2).double().eval()
    own = [value for part in (model.extractor, model.perception) for value in part.state_dict().values()]
    resnet.load_state_dict(dict(zip(resnet.state_dict(), own, strict=True)))
    with torch.no_grad():
        torch.testing.assert_close(model(images()), resnet(images()), rtol=1e-12, atol=1e-12)


def test_a_value_at_theta_stays_and_one_below_it_does_not():
    attention = torch.tensor([0.0, 0.29, 0.3, 0.31, 1.0], dtype=torch.float64, requires_grad=True)
    kept = Threshold(0.3)(attention)
    assert kept.tolist() == [0, 0, 0.3, 0.31, 1]
    (gradient,) = torch.autograd.grad(kept.sum(), attention)
    assert gradient.tolist() == [0, 0, 1, 1, 1]
    assert torch.equal(Threshold()(attention), attention)
    assert "theta=0.3" in repr(Threshold(0.3))


def test_an_empty_attention_shuts_the_perception_branch():
    """With θ_α = 1 nothing passes, whatever the image; the residual form then is the plain ResNet."""
    shut, x = network(theta=1.0), images()
    with torch.no_grad():
        logits = shut(x)
        assert torch.equal(logits[0], logits[1])
        zero = torch.zeros_like(shut.extractor(x))
        assert torch.equal(logits, shut.perception(zero))
        opened = network(theta=1.0, residual=True)
        torch.testing.assert_close(opened(x), opened.perception(opened.extractor(x)), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(33, 47), (64, 32)])
@pytest.mark.parametrize("max_pool", [True, False])
def test_the_map_is_as_large_as_the_features(max_pool, size):
    model = network(max_pool=max_pool)
    pools = [module for module in model.attention.modules() if isinstance(module, nn.MaxPool2d)]
    assert len(pools) == max_pool
    with torch.no_grad():
        attention, logits = model.attention(model.extractor(images(1, *size)))
        assert attention.shape == (1, 1, *model.extractor(images(1, *size)).shape[2:])
        assert logits.shape == (1, 3)
    assert 0 < attention.min() <= attention.max() < 1


def test_state_dict_round_trip():
    model, other = network(theta=0.5), AttentionBranchNetwork(18, 3, 4, 2, theta=0.5).double().eval()
    assert not torch.equal(model(images()), other(images()))
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(model(images()), other(images()))


# LRP's structural walk


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize(("residual", "max_pool", "theta"), [(False, True, 0.0), (True, False, 0.4)])
def test_lrp_walks_it(depth, residual, max_pool, theta):
    model = network(depth, width=2, residual=residual, max_pool=max_pool, theta=theta)
    explainer = LRP(model)
    assert explainer.attribute(images(), 1).isfinite().all()
    layers = set(explainer.ledger.layer)
    assert "gate" in layers
    assert not any(layer.startswith(("attention", "threshold")) for layer in layers)  # R_PB does not enter the map


def test_every_leaf_is_called_once_and_none_in_place():
    model, calls = network(), []
    leaves = [module for module in model.modules() if not any(True for _ in module.children())]
    for module in leaves:
        assert not getattr(module, "inplace", False)
        module.register_forward_hook(lambda module, *_: calls.append(module))
    model(images())
    assert len(calls) == len(set(calls)) == len(leaves)


# training


def labelled(n=24):
    x = 0.3 * images(n, 16, 16)
    y = torch.arange(n) % 3
    for image, label in zip(x, y):
        image[:, 4 * label : 4 * label + 5, 3:13] += 2
    return x, y


@pytest.mark.parametrize("weight", [0.0, 0.1, 2.0])
def test_loss_by_formula(weight):
    model, (x, y) = network(), labelled(5)
    loss = branch_loss(model, (x, y), None, weight)
    logits, branch, _ = (tensor.detach() for tensor in model.branches(x))
    expected = {"perception": 0.0, "attention": 0.0, "accuracy": 0.0}
    for n in range(5):
        for name, scores in (("perception", logits[n]), ("attention", branch[n])):
            expected[name] -= float(scores[y[n]] - scores.exp().sum().log()) / 5
        expected["accuracy"] += float(logits[n].argmax() == y[n]) / 5
    expected["loss"] = expected["perception"] + weight * expected["attention"]
    assert {name: float(value.detach()) for name, value in loss.items()} == pytest.approx(expected, rel=1e-6)
    loss["loss"].backward()
    assert (model.attention.classes[0].weight.grad.abs().max() > 0) == (weight > 0)
    assert model.attention.map[0].weight.grad.abs().max() > 0  # the map learns from the prediction through the gate


def test_default_weight_and_wrong_ones():
    model, batch = network(), labelled(2)
    parts = {name: value.detach() for name, value in branch_loss(model, batch).items()}
    assert float(parts["loss"]) == pytest.approx(float(parts["perception"] + 0.1 * parts["attention"]), rel=1e-12)
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"weight: got {wrong}; expected a finite λ"):
            branch_loss(model, batch, None, wrong)


def test_two_learning_rates():
    model = network()
    model.extractor.conv1.weight.requires_grad_(False)
    rest, branch = model.parameter_groups(1e-4, 1e-3)
    assert (rest["lr"], branch["lr"]) == (1e-4, 1e-3)
    assert {id(p) for p in branch["params"]} == {id(p) for p in model.attention.parameters()}
    every = [id(p) for p in rest["params"] + branch["params"]]
    assert len(every) == len(set(every))
    assert set(every) == {id(p) for p in model.parameters()} - {id(model.extractor.conv1.weight)}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameter_groups(0.0, 1e-2), weight_decay=0)
    branch_loss(model, labelled(4))["loss"].backward()
    optimizer.step()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("attention.") for name in moved)


def test_it_learns_by_fit():
    torch.manual_seed(0)
    model = AttentionBranchNetwork(18, 3, 8, 2, blocks=2).double()
    data = TensorDataset(*labelled())
    history = training.fit(
        model,
        partial(branch_loss, weight=0.5),
        data,
        validation=data,
        epochs=15,
        batch_size=8,
        seed=0,
        optimizer=lambda _parameters: torch.optim.AdamW(model.parameter_groups(3e-3, 1e-2)),
    )
    assert history.val_accuracy.iloc[-1] > 0.9
    for name in ("loss", "perception", "attention"):
        assert history[f"train_{name}"].iloc[-1] < 0.5 * history[f"train_{name}"].iloc[0]
    assert (history.learning_rate == 3e-3).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 101}, "depth: got 101; expected one of 18, 34, 50"),
        ({"blocks": 0}, "blocks: got 0; ResNet-50 has 16, so expected 1 of them or more before the branch"),
        ({"depth": 18, "blocks": 8}, "blocks: got 8; ResNet-18 has 8"),
        ({"theta": -0.1}, r"theta: got -0\.1; expected a number from 0 to 1"),
        ({"theta": float("nan")}, "theta: got nan"),
        ({"n_classes": 0}, "n_classes=0"),
    ],
)
def test_options_out_of_range(options, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        AttentionBranchNetwork(**options)
