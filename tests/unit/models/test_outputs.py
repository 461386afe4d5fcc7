"""`models.predict`: outputs of many images, batch by batch."""

import pytest
import torch
from torch import nn

from xai_utils.models import predict, vgg16_gap


def test_batches_give_what_one_pass_gives_and_the_model_is_left_as_found():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3)).train()
    images = torch.rand(7, 1, 8, 8)
    before = model[1].running_mean.clone()
    seen = []
    handle = model.register_forward_hook(lambda _m, inputs, _o: seen.append((len(inputs[0]), model.training)))
    outputs = predict(model, images, batch_size=3)
    handle.remove()
    assert seen == [(3, False), (3, False), (1, False)]
    assert not outputs.requires_grad
    assert model.training
    assert torch.equal(model[1].running_mean, before)
    torch.testing.assert_close(outputs, model.eval()(images).detach())


@pytest.mark.parametrize(("n", "size"), [(0, 4), (3, 0)])
def test_no_images_or_no_batch(n, size):
    with pytest.raises(ValueError, match=f"got {n} images, batch_size {size}; expected at least one image"):
        predict(vgg16_gap(1, 1), torch.rand(n, 3, 8, 8), batch_size=size)
