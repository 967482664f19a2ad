"""The image-level loss: the class token of every crop predicts the teacher's view of the others."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from pretrain.loss.cross_entropy import soft_cross_entropy


class DinoTerms(NamedTuple):
    """The two shares of the loss, both already divided by the number of all terms."""

    local: Float[Tensor, ""]
    globals_: Float[Tensor, ""]


def dino_loss(
    globals_: Float[Tensor, "two_b prototypes"],
    locals_: Float[Tensor, "local_b prototypes"],
    targets: Float[Tensor, "two_b prototypes"],
    *,
    temperature: float,
) -> DinoTerms:
    """Mean cross-entropy over all pairs of a student's crop and a teacher's other global crop.

    With L local crops there are 2 L + 2 terms: each local crop against both globals, each global against the
    other one. A term is the mean over the batch.

    Args:
        globals_: student scores, crop 1 of all images, then crop 2.
        locals_: student scores, crop by crop, each of all images.
        targets: of the teacher, crop 1 of all images, then crop 2.
        temperature: of the student.

    Source: arXiv:2104.14294, eq. 3; arXiv:2304.07193, §4.
    """
    first, second = targets.chunk(2)
    num_images = len(first)
    num_locals = len(locals_) // num_images
    num_terms = 2 * num_locals + 2
    # A cross-entropy is linear in its target, so the two targets of a local crop are added beforehand.
    both = (first + second).repeat(num_locals, 1)
    local = soft_cross_entropy(locals_, both, temperature=temperature).sum()
    swapped = targets.roll(num_images, dims=0)
    other = soft_cross_entropy(globals_, swapped, temperature=temperature).sum()
    return DinoTerms(local / (num_images * num_terms), other / (num_images * num_terms))
