"""What the trainer asks of a dataset, wherever its images lie."""

from typing import Protocol, runtime_checkable

from pretrain.data.order import Order


@runtime_checkable
class ImageSet(Protocol):
    """The images of a training; safe to send to a worker process.

    Attributes:
        name: for people: its path, or the names of what is mixed.
        digest: names the content, in hex; another one is another training.
        is_exact: whether any step can be made without those before it, so that a stopped training goes on
            with the images that come next.
        reads_wait: whether a read waits for a network, so that several are to be made at once.
    """

    name: str
    digest: str
    is_exact: bool
    reads_wait: bool

    def __len__(self) -> int:
        """Rows: what `read` takes; of a stream, as many as there are numbers."""
        ...

    @property
    def num_images(self) -> int | None:
        """How many there are; None where nobody has counted them."""
        ...

    def read(self, row: int) -> bytes:
        """The bytes of one image; of a stream, of the next one."""
        ...

    def spooled_bytes(self, window_images: int) -> int:
        """What of remote shards is in use together, and lies in the spool meanwhile."""
        ...

    def order(self, *, seed: int, window_images: int) -> Order:
        """Which row stands at which position."""
        ...

    def describe(self) -> str:
        """One line: the name, how many images there are and where, and whether a resume is exact."""
        ...
