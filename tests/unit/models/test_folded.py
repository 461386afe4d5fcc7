"""The faster copy: equal to the model, used where it may be, and never seen from outside."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18

from xai_utils.models import SmallCNN
from xai_utils.models.folded import fast_copy, images_per_batch, scoring


def randomised(model, dtype=torch.float32):
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                if module.running_mean is not None:
                    module.running_mean.normal_(generator=random)
                    module.running_var.uniform_(0.5, 2, generator=random)
                if module.weight is not None:
                    module.weight.uniform_(0.5, 2, generator=random)
                    module.bias.normal_(generator=random)
    return model.to(dtype).eval()


def images(n=3, channels=3, dtype=torch.float32, side=16):
    return torch.rand(n, channels, side, side, dtype=dtype, generator=torch.Generator().manual_seed(6))


class Net(nn.Module):
    """Convolution, BatchNorm and head, joined in any way."""

    def __init__(self, forward=None, norm=None, convolution=None):
        super().__init__()
        self.conv = convolution or nn.Conv2d(3, 4, 3)
        self.norm = norm or nn.BatchNorm2d(4)
        self.other = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 5)
        self.way = forward or (lambda m, x: m.norm(m.conv(x)))

    def forward(self, x):
        return self.head(self.way(self, x).relu().mean((2, 3)))


def norms_run(model, fast, x):
    """BatchNorm calls that one call of `fast` makes, in any copy."""
    calls = []
    original = F.batch_norm
    try:
        F.batch_norm = lambda *arguments, **options: calls.append(1) or original(*arguments, **options)
        with torch.no_grad():
            outputs = fast(x)
    finally:
        F.batch_norm = original
    return len(calls), outputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("build", "channels"),
    [
        (lambda: resnet18(num_classes=7), 3),
        (lambda: SmallCNN(n_classes=7, in_channels=2), 2),  # its forward pass asks for the shape: cannot be traced
        (lambda: Net(convolution=nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2, bias=False)), 3),
        (lambda: Net(norm=nn.BatchNorm2d(4, affine=False, eps=0.1)), 3),
        (lambda: Net(convolution=nn.Conv2d(4, 4, 3, groups=4)), 4),
    ],
    ids=["resnet18", "SmallCNN", "strided", "not affine", "grouped"],
)
def test_no_batch_norm_is_left_and_the_outputs_are_equal(build, channels, dtype):
    torch.manual_seed(1)
    model, x = randomised(build(), dtype), images(channels=channels, dtype=dtype, side=32)
    with torch.no_grad():
        outputs = model(x)
        fast = fast_copy(model, x[:2], outputs[:2])
    calls, found = norms_run(model, fast, x)
    assert calls == 0
    assert found.shape == outputs.shape
    tolerance = (1e-5 if dtype == torch.float32 else 1e-12) * max(1, outputs.abs().max())
    assert (found - outputs).abs().max() <= tolerance
    assert norms_run(model, model, x)[0] > 0


def test_the_model_is_not_touched_and_shares_what_is_not_a_convolution():
    torch.manual_seed(1)
    model, x = randomised(Net()), images()
    before = copy.deepcopy(model.state_dict())
    strides = [parameter.stride() for parameter in model.parameters()]
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    with torch.no_grad():
        outputs = model(x)
        fast = fast_copy(model, x, outputs)
        assert norms_run(model, fast, x)[0] == 0
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert [parameter.stride() for parameter in model.parameters()] == strides
        assert [parameter.data_ptr() for parameter in model.parameters()] == pointers
        assert not any(module._forward_hooks for module in model.modules())
        model.head.weight.mul_(2)
        torch.testing.assert_close(fast(x), model(x))
    assert all(parameter.requires_grad for parameter in model.parameters())


def in_place_between(m, x):
    features = m.conv(x)
    m.relu(features)
    return m.norm(features)


def twice(m, x):
    return m.norm(m.conv(x)) + m.norm(m.conv(x.flip(3)))


def both(m, x):
    features = m.conv(x)
    return m.norm(features) + features


def functional(m, x):
    return F.batch_norm(m.conv(x), m.norm.running_mean, m.norm.running_var)


@pytest.mark.parametrize("way", [in_place_between, twice, both, functional, lambda m, x: m.norm(x.repeat(1, 2, 1, 1))])
def test_what_cannot_be_folded_runs_as_it_is(way):
    torch.manual_seed(1)
    model, x = randomised(Net(way)), images(channels=2 if "lambda" in way.__name__ else 3)
    with torch.no_grad():
        outputs = model(x)
        fast = fast_copy(model, x, outputs)
    plain = norms_run(model, model, x)
    found = norms_run(model, fast, x)
    assert found[0] == plain[0] > 0
    torch.testing.assert_close(found[1], plain[1], rtol=0, atol=1e-5)


def test_batch_statistics_hooks_and_subclasses_are_left_alone():
    class OwnConv(nn.Conv2d):
        def forward(self, x):
            return super().forward(x).square()

    torch.manual_seed(1)
    hooked = Net()
    hooked.norm.register_forward_hook(lambda _module, _inputs, output: output + 1)
    x = images()
    for model in (
        hooked,
        Net(norm=nn.BatchNorm2d(4, track_running_stats=False)),
        Net(None, None, OwnConv(3, 4, 3)),
    ):
        randomised(model)
        with torch.no_grad():
            outputs = model(x)
            fast = fast_copy(model, x, outputs)
        calls, found = norms_run(model, fast, x)
        assert calls == 1
        torch.testing.assert_close(found, outputs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["in place", "hook"])
def test_one_pair_that_cannot_be_folded_leaves_the_others_folded(case):
    torch.manual_seed(1)
    between = nn.ReLU(inplace=True) if case == "in place" else nn.Identity()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), between, nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    model.append(nn.Flatten())
    if case == "hook":
        model[2].register_forward_hook(lambda _module, _inputs, output: output + 1)
    randomised(model)
    x = images()
    with torch.no_grad():
        outputs = model(x)
        fast = fast_copy(model, x, outputs)
    calls, found = norms_run(model, fast, x)
    assert calls == 1
    torch.testing.assert_close(found, outputs, rtol=0, atol=1e-5)


def by_brightness(m, x):
    return m.norm(m.conv(x)) if x.mean() < 1 else m.other(m.conv(x))


def skips_when_bright(m, x):
    return m.norm(m.conv(x)) if x.mean() < 1 else m.conv(x)


def changes_between_when_bright(m, x):
    features = m.conv(x)
    return m.norm(features if x.mean() < 1 else features * 2)


@pytest.mark.parametrize("way", [by_brightness, skips_when_bright, changes_between_when_bright])
def test_a_later_batch_may_take_another_path(way):
    torch.manual_seed(1)
    model, dark = randomised(Net(way)), images()
    bright = dark + 3
    with torch.no_grad():
        fast = fast_copy(model, dark, model(dark))
        assert norms_run(model, fast, dark)[0] == 0
        torch.testing.assert_close(fast(bright), model(bright), rtol=0, atol=0)
        assert (fast(bright) - fast(dark)).abs().max() > 1e-3
        torch.testing.assert_close(fast(dark), model(dark), rtol=0, atol=1e-5)


def test_a_model_that_cannot_be_copied_or_gains_nothing_runs_itself():
    refused = randomised(Net())
    refused.last = (refused.head.weight * 2).sum()  # a result with a graph: deepcopy refuses it
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 5))
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).double()
    with torch.no_grad():
        for model in (refused, flat, plain):
            x = images().to(next(model.parameters()).dtype)
            assert fast_copy(model, x, model(x)) is model
        plain.float()
        assert fast_copy(plain, images(), plain(images())) is not plain  # channels last


def test_a_view_that_does_not_allow_channels_last_is_folded_all_the_same():
    class Viewing(Net):
        def forward(self, x):
            features = self.norm(self.conv(x))
            return self.head(features.view(len(x), 4, -1).mean(2))

    torch.manual_seed(1)
    model, x = randomised(Viewing()), images()
    with torch.no_grad():
        outputs = model(x)
        calls, found = norms_run(model, fast_copy(model, x, outputs), x)
    assert calls == 0
    torch.testing.assert_close(found, outputs, rtol=0, atol=1e-5)


class OnlyHere(Net):
    """Its copies raise `error` in their forward pass, from the call number `first` on."""

    def __init__(self, error, first=0):
        super().__init__()
        self.error, self.first, self.calls, self.original = error, first, 0, id(self)

    def forward(self, x):
        if id(self) != self.original:
            self.calls += 1
            if self.calls > self.first:
                raise self.error
        return super().forward(x)


MEMORY = [MemoryError("none left"), torch.OutOfMemoryError("CUDA out of memory")]
MEMORY += [RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]


@pytest.mark.parametrize("error", MEMORY, ids=["Python", "GPU", "CPU"])
def test_running_out_of_memory_is_raised_while_the_copy_is_made_and_when_it_runs(error):
    x = images()
    with torch.no_grad():
        model = randomised(OnlyHere(error))
        with pytest.raises(type(error), match=str(error)):
            fast_copy(model, x, model(x))
        # the copy is called to find the pairs, and to be compared: each batch after that
        late = randomised(OnlyHere(error, first=2))
        fast = fast_copy(late, x, late(x))
        with pytest.raises(type(error), match=str(error)):
            fast(x)


@pytest.mark.parametrize("error", [RuntimeError("view size is not compatible"), TypeError("no such module")], ids=str)
def test_a_model_that_fails_as_a_copy_runs_itself(error):
    x = images()
    with torch.no_grad():
        model = randomised(OnlyHere(error))
        assert fast_copy(model, x, model(x)) is model


def test_a_batch_that_the_copy_does_not_allow_goes_to_the_model():
    x = images()
    with torch.no_grad():
        model = randomised(OnlyHere(RuntimeError("view size is not compatible"), first=2))
        fast = fast_copy(model, x, model(x))
        assert fast is not model
        torch.testing.assert_close(fast(x), model(x), rtol=0, atol=0)


def test_an_error_of_the_models_own_is_raised_as_it_is():
    x = images()
    with torch.no_grad():
        model = randomised(OnlyHere(ValueError("a dark image"), first=2))
        fast = fast_copy(model, x, model(x))
        with pytest.raises(ValueError, match="a dark image"):
            fast(x)


# scores


def test_scores_are_the_probability_or_the_logit_of_each_images_own_target():
    torch.manual_seed(1)
    model, x = randomised(Net(), torch.float64), images(dtype=torch.float64)
    which, targets = torch.tensor([2, 0, 2, 1]), torch.tensor([4, 0, 1])
    changed = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        logits = model(changed)
    for score, table in (("logit", logits), ("probability", logits.softmax(1))):
        with scoring(model, x, targets, score) as (seen, scores):
            assert torch.equal(seen, x)
            expected = torch.stack([table[b, targets[n]] for b, n in enumerate(which)])
            torch.testing.assert_close(scores(changed, which), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_single_output_is_its_own_score(shape):
    class Single(nn.Module):
        def forward(self, x):
            return x.mean((1, 2, 3)).reshape(shape)

    x = images()
    for target in (None, 0):
        with scoring(Single(), x, target) as (_, scores):
            torch.testing.assert_close(scores(x, torch.arange(3)), x.mean((1, 2, 3)))


def test_a_model_that_writes_into_its_input_leaves_the_callers_images():
    class InPlace(Net):
        def forward(self, x):
            return super().forward(x.sub_(0.5))

    model, x = randomised(InPlace()), images()
    before = x.clone()
    with scoring(model, x, 1) as (_, scores):
        values = scores(x.clone(), torch.arange(3))
    assert torch.equal(x, before)
    with torch.no_grad():
        torch.testing.assert_close(values, model(before.clone()).softmax(1)[:, 1])


@pytest.mark.parametrize("n", [1, 3])
def test_softmax_inside_the_model_is_refused(n):
    model, x = nn.Sequential(Net(), nn.Softmax(1)).eval(), images(n)
    with pytest.raises(ValueError, match=r'softmax inside the model.*score="logit"'), scoring(model, x, 1):
        pass
    with scoring(model, x, 1, "logit") as (_, scores), torch.no_grad():
        torch.testing.assert_close(scores(x, torch.arange(n)), model(x)[:, 1], rtol=0, atol=1e-5)


class Returns(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x.mean((2, 3)).squeeze(), r"the model returned \(3,\) for 1 images"),  # a batch of one, squeezed
        (lambda x: x.mean(), r"the model returned \(\) for 1 images"),
        (lambda x: (x, x), "the model returned tuple for 1 images"),
        (lambda x: x, r"the model returned \(1, 3, 16, 16\)"),
    ],
)
def test_outputs_that_are_no_scores(make, message):
    with pytest.raises(ValueError, match=message), scoring(Returns(make), images(1), 0):
        pass


def test_outputs_that_are_not_finite():
    for value in (math.nan, math.inf):
        model = Returns(lambda x, value=value: x.mean((2, 3)) * value)
        with scoring(model, images(), 0) as (_, scores), pytest.raises(ValueError, match="NaN or infinite"):
            scores(images(), torch.arange(3))


def test_other_arguments():
    with pytest.raises(ValueError, match="score: got 'softmax'"), scoring(Net(), images(), 0, "softmax"):
        pass
    with pytest.raises(ValueError, match="got 5, but the model has 5 classes"), scoring(Net(), images(), 5):
        pass
    one = images()[0]
    with pytest.raises(ValueError, match=r"got shape \(3, 16, 16\).*inputs\[None\]"), scoring(Net(), one, 0):
        pass


def test_images_per_batch(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert images_per_batch(images(side=224), None) == 16
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert images_per_batch(images(side=224), None) == 8
    assert images_per_batch(images(side=28), None) == 512
    assert images_per_batch(torch.empty(1, 3, 4000, 4000), None) == 1
    assert images_per_batch(images(), 3) == 3
    for wrong in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match=f"batch_size: got {wrong}"):
            images_per_batch(images(), wrong)
