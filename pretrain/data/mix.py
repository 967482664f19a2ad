"""Several datasets as one, each with its share of the images."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from curation.errors import ConfigError
from pretrain.data.image_set import ImageSet
from pretrain.data.order import MIX_BLOCK, MixedOrder, Order, shares_of


class MixedImages:
    """The rows of several datasets, one dataset after another; safe to send to a worker process.

    Args:
        parts: the datasets.
        names: of each, for people.
        weights: of each; a dataset's share is exact in every 1,000 positions.

    Attributes:
        digest: the SHA-256 over the datasets' digests and shares.

    Raises:
        ConfigError: when a dataset is a stream, of which nobody can tell what stands where.
    """

    is_exact = True

    def __init__(self, parts: Sequence[ImageSet], *, names: Sequence[str], weights: Sequence[float]) -> None:
        for part in parts:
            if not part.is_exact:
                raise ConfigError(
                    "data.mix has a stream in it, and what is mixed must resume exactly",
                    got=part.describe(),
                    expected="run directories, or plain tars on this machine's disks",
                    remedy="Fetch the tars, or train on them alone as data.path",
                )
        self.parts, self.names, self.shares = tuple(parts), tuple(names), tuple(shares_of(weights))
        self.name = " + ".join(self.names)
        listed = json.dumps(
            [[part.digest, share] for part, share in zip(self.parts, self.shares, strict=True)]
        )
        self.digest = hashlib.sha256(listed.encode()).hexdigest()
        self.reads_wait = any(part.reads_wait for part in self.parts)
        self._ends = np.cumsum([len(part) for part in self.parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def num_images(self) -> int:
        """How many there are in all datasets."""
        return len(self)

    def describe(self) -> str:
        """One line for people."""
        told = (
            f"{share / MIX_BLOCK:.1%} {name} ({len(part):,} images)"
            for name, share, part in zip(self.names, self.shares, self.parts, strict=True)
        )
        return f"{', '.join(told)}; resumes exactly"

    def order(self, *, seed: int, window_images: int) -> Order:
        """Each dataset's own order, by its share."""
        orders = [
            part.order(seed=_seed_of(seed, number), window_images=window_images)
            for number, part in enumerate(self.parts)
        ]
        sizes = [len(part) for part in self.parts]
        return MixedOrder(orders, sizes=sizes, shares=self.shares, seed=seed)

    def spooled_bytes(self, window_images: int) -> int:
        """What is in use together of all datasets."""
        return sum(part.spooled_bytes(window_images) for part in self.parts)

    def read(self, row: int) -> bytes:
        """The bytes of one image; raises as its dataset does."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self.parts[number].read(row - int(self._ends[number]) + len(self.parts[number]))


def _seed_of(seed: int, number: int) -> int:
    """Datasets of one size would go through their rows in one order."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> 1)
