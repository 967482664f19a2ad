"""Which patches of the global crops the student does not see: blocks, as in BEiT and DINOv2."""

import math

import numpy as np
from jaxtyping import Bool
from pydantic import BaseModel, ConfigDict, Field, model_validator


class MaskingConfig(BaseModel):
    """How much of a batch is masked, and in blocks of what shape."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: float = Field(
        0.5, ge=0, le=1, description="share of a batch's global crops that are masked at all, 0-1"
    )
    ratio_min: float = Field(
        0.1, ge=0, le=1, description="smallest share of a masked crop's patches to mask, 0-1"
    )
    ratio_max: float = Field(
        0.5, ge=0, le=1, description="largest share of a masked crop's patches to mask, 0-1"
    )
    min_block_patches: int = Field(4, ge=1, description="smallest area of a block to draw, patches")
    max_block_ratio: float = Field(
        0.5, gt=0, le=1, description="largest number of patches that one block may add, share of the grid"
    )
    min_aspect: float = Field(
        0.3, gt=0, le=1, description="smallest height / width of a block; the largest is 1 / min_aspect"
    )
    tries: int = Field(10, ge=1, description="attempts to place one block before the crop is left as it is")
    exact: bool = Field(
        False, description="top up with single patches where blocks fall short of the target (as DINOv3 does)"
    )

    @model_validator(mode="after")
    def _check_ratios(self) -> "MaskingConfig":
        if self.ratio_min > self.ratio_max:
            raise ValueError(f"ratio_min {self.ratio_min} is above ratio_max {self.ratio_max}; swap them")
        return self


def mask_block(
    grid: tuple[int, int], num_target: int, config: MaskingConfig, rng: np.random.Generator
) -> Bool[np.ndarray, "h w"]:
    """Mask blocks of one crop until the target is met or no further block can be placed.

    A block may overlap those before it, and what it adds never exceeds what is missing; so the target is
    never passed, and now and then not quite met: where fewer patches are wanted than `min_block_patches`, a
    block has to lie mostly on others.

    Args:
        grid: (h, w), patches.
        num_target: patches to mask, 0..h*w.
        config: shapes of blocks, and whether what falls short is topped up.
        rng: where the blocks are drawn from.

    Returns:
        bool, (h, w), true where the patch is masked: at most `num_target` of them, and with `exact` as many.

    Raises:
        ValueError: the target is negative or more than the grid has.

    Source: arXiv:2106.08254, Algorithm 1, as `dinov2/data/masking.py` has it.
    """
    if not 0 <= num_target <= grid[0] * grid[1]:
        raise ValueError(f"cannot mask {num_target} patches of a grid of {grid[0]} x {grid[1]}")
    mask = np.zeros(grid, bool)
    max_block = int(config.max_block_ratio * mask.size)
    num_masked = 0
    while num_masked < num_target:
        num_added = _add_block(mask, min(num_target - num_masked, max_block), config, rng)
        if num_added == 0:
            break
        num_masked += num_added
    if config.exact:
        free = np.flatnonzero(~mask)
        mask.flat[rng.choice(free, num_target - num_masked, replace=False)] = True
    return mask


def mask_batch(
    num_images: int, grid: tuple[int, int], config: MaskingConfig, rng: np.random.Generator
) -> Bool[np.ndarray, "num_images num_patches"]:
    """Draw the masks of a batch of global crops.

    int(num_images * probability) of them are masked. The range of ratios is cut into as many equal strata,
    and each masked crop draws its ratio from its own, so that every batch masks about as much as any other.
    Which crops those are is shuffled.

    Args:
        num_images: global crops in the batch (both of every image).
        grid: (h, w), patches.
        config: shares, ratios and blocks.
        rng: where all of it is drawn from.

    Returns:
        bool, (num_images, h*w), row-major patches, true where masked.

    Source: arXiv:2304.07193, §4; `dinov2/data/collate.py`.
    """
    num_patches = grid[0] * grid[1]
    num_masked_images = int(num_images * config.probability)
    strata = np.linspace(config.ratio_min, config.ratio_max, num_masked_images + 1)
    masks = np.zeros((num_images, num_patches), bool)
    for i in range(num_masked_images):
        num_target = int(num_patches * rng.uniform(strata[i], strata[i + 1]))
        masks[i] = mask_block(grid, num_target, config, rng).ravel()
    rng.shuffle(masks)
    return masks


def _add_block(
    mask: Bool[np.ndarray, "h w"], max_new: int, config: MaskingConfig, rng: np.random.Generator
) -> int:
    """Add one block to the mask in place; return how many patches are new, 0 where no try was accepted."""
    grid_height, grid_width = mask.shape
    for _ in range(config.tries):
        # Where less is wanted than min_block_patches this runs from the larger to the smaller, as officially.
        area = config.min_block_patches + rng.random() * (max_new - config.min_block_patches)
        aspect = config.min_aspect ** (1 - 2 * rng.random())
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= grid_height or width >= grid_width:
            continue
        top = rng.integers(0, grid_height - height, endpoint=True)
        left = rng.integers(0, grid_width - width, endpoint=True)
        block = mask[top : top + height, left : left + width]
        num_new = int(block.size - np.count_nonzero(block))
        if 0 < num_new <= max_new:
            block[:] = True
            return num_new
    return 0
