"""What several tests of models and of papers do with theirs."""

import torch
from torch import nn

from xai_utils.seeds import generator


def as_trained(model):
    """The model in evaluation mode with BatchNorm as after training, drawn from torch's global generator."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
    return model.eval()


def augmented_from_its_generator_alone(augment, images, labels, seed=0):
    """Check that an augmentation draws from its generator alone, image by image, out of place; return the images."""
    before, count = images.clone(), len(images)
    torch.manual_seed(1)
    found, kept = augment((images, labels), generator(seed, "augment"))
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is as it was
    torch.manual_seed(2)
    assert torch.equal(found, augment((images, labels), generator(seed, "augment"))[0])
    assert not torch.equal(found, augment((images, labels), generator(seed + 1, "augment"))[0])
    assert torch.equal(kept, labels)
    assert torch.equal(images, before)
    same = augment((images[:1].expand(count, -1, -1, -1), labels), generator(seed, "augment"))[0]
    assert len({tuple(image.flatten().tolist()) for image in same}) == count
    return found
