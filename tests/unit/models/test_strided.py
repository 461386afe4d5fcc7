"""1 × 1 convolutions with a stride are trained around a fault of oneDNN."""

import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from xai_utils import models, training
from xai_utils.models.strided import trainable

TRAINING = """
from functools import partial
import sys
import torch
from torch.utils.data import TensorDataset
from xai_utils import models, training

torch.set_num_threads(2)
torch.manual_seed(0)
model = models.AttentionBranchNetwork(18, n_classes=2, width=int(sys.argv[1])).to(memory_format=torch.channels_last)
data = TensorDataset(torch.rand(13, 3, 64, 64), torch.arange(13) % 2)
sgd = partial(torch.optim.SGD, lr=1e-3)
training.fit(model, models.branch_loss, data, epochs=20, optimizer=sgd, seed=0, batch_size=13, progress=False)
"""


@pytest.mark.parametrize("channels", [4, 8])  # below a block of 8 (AVX2) and of 16 (AVX-512)
def test_an_odd_number_of_images_on_two_threads_does_not_end_python(channels):
    done = subprocess.run([sys.executable, "-c", TRAINING, str(channels)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def block(stride=2, channels=5, **options):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 7, 1, stride, **options))


@pytest.mark.parametrize("size", [(8, 8), (9, 6), (1, 3)])
@pytest.mark.parametrize("stride", [2, 3, (1, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_output_and_gradients_are_those_of_the_convolution(size, stride, layout):
    model = block(stride)
    images = torch.rand(4, 5, *size).contiguous(memory_format=layout).requires_grad_()

    def asked():
        out = model(images)
        weighted = (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum()
        return [out.detach(), *torch.autograd.grad(weighted, [images, *model.parameters()])]

    with torch.backends.mkldnn.flags(enabled=False):
        expected = asked()
    with trainable(model):
        found = asked()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_the_model_is_as_before_also_after_an_error():
    model = block()
    state, kept = set(model[0].__dict__), model[0]._conv_forward
    with pytest.raises(RuntimeError, match="to have 5 channels"), trainable(model):
        model(torch.rand(1, 3, 4, 4))
    assert set(model[0].__dict__) == state
    assert model[0]._conv_forward == kept


@pytest.mark.parametrize(
    "model",
    [
        block(1),
        block(channels=16),
        block(padding=1),
        nn.Sequential(nn.Conv2d(5, 7, 3, 2)),
        nn.Sequential(nn.Conv2d(5, 5, 1, 2, groups=5)),
        block().to("meta"),
    ],
)
def test_others_are_left_alone(model):
    before = set(model[0].__dict__)
    with trainable(model):
        assert set(model[0].__dict__) == before


def test_a_training_that_first_measures_its_time_is_guarded_in_its_trial(monkeypatch):
    seen = []
    convolution = nn.functional.conv2d
    monkeypatch.setattr(nn.functional, "conv2d", lambda *args: seen.append(args[0].shape) or convolution(*args))
    model = nn.Sequential(*block(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    data = TensorDataset(torch.rand(6, 5, 8, 8), torch.arange(6) % 2)
    loss = lambda model, batch, _: nn.functional.cross_entropy(model(batch[0]), batch[1])  # noqa: E731
    sgd = partial(torch.optim.SGD, lr=1e-3)
    training.fit(model, loss, data, epochs=1, optimizer=sgd, seed=0, batch_size=3, minutes=1, progress=False)
    assert seen == [(3, 5, 4, 4)] * 6  # four steps of the trial, two of the epoch: each other pixel, no stride


def test_an_attention_branch_network_of_eight_channels_has_such_a_shortcut():
    model = models.AttentionBranchNetwork(18, 2, 8, 3)
    with trainable(model):
        short = [name for name, module in model.named_modules() if "_conv_forward" in module.__dict__]
    assert len(short) == 1
