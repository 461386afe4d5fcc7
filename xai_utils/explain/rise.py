"""RISE (Petsiuk et al. 2018): how high the score is, on average, while a pixel is shown."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.folded import images_per_batch, scoring
from ..models.forward import Output, Target
from ..progress import bar
from ..seeds import generator


@dataclass(eq=False, repr=False)
class RISE:
    """Randomized input sampling: needs forward passes only, so it explains a model that has no gradients.

    Of random soft masks M_i in [0, 1], shared by all images of a call, and the scores f of what they leave of image I:

        S(λ) = Σ_i f(I ⊙ M_i) M_i(λ) / Σ_i M_i(λ)

    This is eq. (6) of its paper with the masks' own sum at pixel λ for its expectation n·`keep`, so that a constant
    score gives a flat map at any number of masks; both have the limit E[f(I ⊙ M) | M(λ) = 1], eq. (4). A pixel that no
    mask shows gets the mean score. Masks are made batch by batch and do not depend on the batch size.

    The score is the target's probability; a model with a single output scores by that output, and target is None.
    What is hidden is 0 in the units of the images. A small `keep` needs more masks.

    Attributes:
        n_masks: forward passes per image.
        cells: cells of the grid that a mask is enlarged from, per side, or (rows, columns).
        keep: probability that a cell is shown, above 0 and below 1; also the masks' mean at every pixel.
        seed: of the masks.
        score: "probability"; "sigmoid" of the target's output, for several labels at once; "logit" for it as it is.
        output: which part of what the model returns, a key, field, index or callable; None = all of it.
        batch_size: masked images per forward pass; None = what runs best.
    """

    model: nn.Module
    _: KW_ONLY
    n_masks: int = 4000
    cells: int | tuple[int, int] = 7
    keep: float = 0.5
    seed: int = 0
    score: str = "probability"
    output: Output = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        grid = self.cells if isinstance(self.cells, tuple) else (self.cells, self.cells)
        for name, value, numbers in (("n_masks", self.n_masks, (self.n_masks,)), ("cells", self.cells, grid)):
            if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers):
                raise ValueError(f"{name}: got {value!r}; expected a positive integer")
        if len(grid) != 2:
            raise ValueError(f"cells: got {self.cells!r}; expected one number, or (rows, columns)")
        if not 0 < self.keep < 1:
            raise ValueError(f"keep: got {self.keep!r}; expected a probability above 0 and below 1")
        self._grid = grid

    def attribute(self, inputs: Tensor, target: Target = None) -> Tensor:
        """Return the maps (N, H, W), of half-precision images float32: rounding would level them; see `Explainer`."""
        with scoring(self.model, inputs, target, self.score, self.output) as (images, scores):
            size = images_per_batch(images, self.batch_size)
            precise = images.new_zeros((), dtype=torch.promote_types(images.dtype, torch.float32))  # of half: float32
            weighted = precise.new_zeros(images[:, 0].shape)  # Σ f M, (N, H, W)
            total = precise.new_zeros(len(images))  # Σ f
            shown = precise.new_zeros(images.shape[2:])  # Σ M
            with bar(self.n_masks * len(images), "masked image") as done:
                for masks in self.masks(images.shape[2:], size):
                    masks = masks.to(precise)
                    shown += masks.sum(0)
                    for i, image in enumerate(images):
                        which = torch.full((len(masks),), i, device=images.device)
                        values = scores((masks[:, None] * image).to(images), which).to(precise)
                        with torch.autocast(images.device.type, enabled=False):
                            weighted[i] += torch.tensordot(values, masks, 1)
                        total[i] += values.sum()
                        done.update(len(masks))
        mean = (total / self.n_masks)[:, None, None]
        return torch.where(shown > 0, weighted / shown, mean)

    def masks(self, size: tuple[int, int], batch_size: int) -> Iterator[Tensor]:
        """Yield the masks of a call for images of `size` (H, W): `n_masks` in all, in batches (B, H, W), float32.

        Sect. 3.2: a grid of cells, each 1 with probability `keep`, is enlarged bilinearly by one cell more than the
        image needs; the image's size is cut out of it at a random place.
        """
        random = generator(self.seed, "RISE")
        tables = [_enlarging(cells, length) for cells, length in zip(self._grid, size, strict=True)]
        n_cells = self._grid[0] * self._grid[1]
        for start in range(0, self.n_masks, batch_size):
            # a mask draws a row of its own, whatever the batch; 53 bits keep a small probability exact
            count = min(batch_size, self.n_masks - start)
            drawn = torch.rand(count, n_cells + 2, generator=random, dtype=torch.float64, device="cpu")
            grids = (drawn[:, :n_cells] < self.keep).float().reshape(-1, *self._grid)
            shifts = [(drawn[:, n_cells + axis] * len(tables[axis])).long() for axis in (0, 1)]
            rows, columns = (table[shift] for table, shift in zip(tables, shifts, strict=True))
            with torch.autocast("cpu", enabled=False):
                masks = rows @ grids @ columns.mT
            yield masks


def _enlarging(cells: int, length: int) -> Tensor:
    """Matrices (shifts, length, cells) that interpolate `cells` values bilinearly to `length` pixels, at each shift."""
    pixels = -(-length // cells)  # per cell, rounded up: every shift by up to a cell stays inside
    one = torch.eye(cells, dtype=torch.float32, device="cpu")
    table = F.interpolate(one[None], (cells + 1) * pixels, mode="linear")[0]  # (cells, pixels in all)
    return table.unfold(1, length, 1)[:, : pixels + 1].permute(1, 2, 0).contiguous()
