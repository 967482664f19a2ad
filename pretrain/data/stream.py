"""Images of tars that can only be read from start to end: URLs, commands, compressed ones.

They are read by the `webdataset` package's own reader and shuffled by its buffer. What a step sees depends on
how many readers there are and on when they began: a training that is stopped goes on with other images than
it would have seen. Whoever wants more puts plain tars on a disk (`tar_images`) or curates them (`lvd run`).
"""

import contextlib
import hashlib
import itertools
import json
import lzma
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from curation import storage
from curation.errors import SourceError
from curation.packages import needing
from curation.printed import redact
from pretrain.data.order import Order, permuted
from pretrain.data.tar_listing import is_image, kind_of

TRIES = 3  # at a tar; what was given out already is passed over
# What is raised where bytes do not come, or are no tar's: by commands and disks, tarfile, and what unpacks.
_BREAKS = (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError)
_WAIT_S = 2.0  # before the second try; twice as long before the third
_DRAINED_BYTES = 1 << 20
_SHUFFLE_SEED = 5  # tells the seeds of buffers from those of other draws
_APPROXIMATE = "read as a stream: a stopped training goes on with other images than it would have seen"


class StreamOrder:
    """A stream has no rows: at each position stands what comes next."""

    def rows(self, positions: Int64[np.ndarray, "m"]) -> Int64[np.ndarray, "m"]:
        """The positions themselves."""
        return positions


class StreamedImages:
    """The images of tars, one after another, in each process its own; safe to send to a worker process.

    All readers of a training share one endless list, the tars in another order in each epoch, and reader r of
    n takes tars r, r + n, r + 2n, … of it: each tar is read equally often, however few there are.

    Args:
        name: the pattern, for people.
        paths: of the tars.
        extensions: of the members that are images.
        buffer_images: held by a reader, and given out in random order.

    Attributes:
        digest: the SHA-256 over the names of the tars alone, without what a `?` begins: nothing is fetched
            for it.

    Raises:
        ConfigError: when `webdataset` is not installed.
    """

    is_exact = False
    reads_wait = False  # the next image is asked for by one thread
    num_images = None

    def __init__(
        self, name: str, paths: Sequence[str], *, extensions: Sequence[str], buffer_images: int
    ) -> None:
        _require_reader()
        self.name, self._paths, self._extensions = redact(name), tuple(paths), tuple(extensions)
        self._buffer_images = buffer_images
        named = [path if kind_of(path) == "pipe" else path.partition("?")[0] for path in self._paths]
        listed = json.dumps([named, self._extensions])
        self.digest = hashlib.sha256(listed.encode()).hexdigest()
        self._images: Iterator[bytes] | None = None
        self._begun: tuple[int, int] | None = None  # which reader, of how many

    def __len__(self) -> int:
        return sys.maxsize

    def __getstate__(self) -> dict[str, Any]:
        """A worker begins by itself."""
        return {**self.__dict__, "_images": None, "_begun": None}

    def describe(self) -> str:
        """One line for people."""
        return f"{self.name}: {len(self._paths):,} tars, {_APPROXIMATE}"

    def order(self, *, seed: int, window_images: int) -> Order:  # noqa: ARG002 — of all kinds of datasets
        """What comes next."""
        return StreamOrder()

    def spooled_bytes(self, window_images: int) -> int:  # noqa: ARG002
        """Nothing: what is read is not kept."""
        return 0

    def begin(self, reader: int, num_readers: int, *, seed: tuple[int, ...]) -> None:
        """Begin to read, if that reader has not begun.

        Args:
            reader: which of the readers this process is.
            num_readers: of the training, over all ranks and workers.
            seed: numbers that the readers have in common; others from another start on.
        """
        if self._begun == (reader, num_readers):
            return
        self._begun = (reader, num_readers)
        self._images = self._shuffled(reader, num_readers, seed)

    def read(self, row: int) -> bytes:  # noqa: ARG002 — a stream has none
        """The bytes of the next image; before a reader has begun, of one that goes through all tars alone.

        Raises:
            SourceError: when a tar cannot be read, or none has an image.
        """
        if self._images is None:
            self._images = self._shuffled(0, 1, seed=(0,))
        return next(self._images)

    def _shuffled(self, reader: int, num_readers: int, seed: tuple[int, ...]) -> Iterator[bytes]:
        from webdataset import filters

        shuffle = filters.shuffle(self._buffer_images, seed=_seed_of(*seed, _SHUFFLE_SEED, reader))
        images: Iterator[bytes] = iter(shuffle(self._members(self._tars(reader, num_readers, seed))))
        return images

    def _tars(self, reader: int, num_readers: int, seed: tuple[int, ...]) -> Iterator[str]:
        num = len(self._paths)
        for turn in itertools.count(reader, num_readers):
            epoch, place = divmod(turn, num)
            yield self._paths[int(permuted(np.array([place]), size=num, seed=(*seed, epoch))[0])]

    def _members(self, tars: Iterator[str]) -> Iterator[bytes]:
        """The images of tars, tar by tar."""
        num_empty = 0
        for path in tars:
            num_images = 0
            for data in _tried_again(path, lambda name: is_image(name, self._extensions)):
                num_images += 1
                yield data
            num_empty = 0 if num_images else num_empty + 1
            if num_empty >= len(self._paths):
                raise SourceError(
                    f"No member of {self.name} is an image by its name",
                    got=f"none in {num_empty} tars in a row",
                    expected=f"one of {', '.join(self._extensions)} after the first dot",
                    remedy="Name the extensions of the images in data.extensions",
                )


def _tried_again(path: str, is_wanted: Callable[[str], bool]) -> Iterator[bytes]:
    """The wanted members of a tar; one that breaks off is opened again, and read from where it was."""
    num_given = 0
    for attempt in range(1, TRIES + 1):
        try:
            for data in itertools.islice(_read_tar(path, is_wanted), num_given, None):
                num_given += 1
                yield data
            return
        except _BREAKS as error:
            if attempt == TRIES:
                raise SourceError(
                    f"A tar that is read as a stream breaks off after {num_given:,} images: {redact(path)}",
                    got=_told(error),
                    expected=f"a tar that is whole in one of {TRIES} tries",
                    remedy="Try it by hand (curl -f -L URL | tar t), and run the command again: it goes on "
                    "at the last checkpoint",
                ) from error
            time.sleep(_WAIT_S * attempt)


def _read_tar(path: str, is_wanted: Callable[[str], bool]) -> Iterator[bytes]:
    from webdataset.tariterators import tar_file_expander

    with _opened(path) as stream:
        source = iter([{"url": path, "stream": stream}])
        for member in tar_file_expander(source, select_files=is_wanted, eof_value=None):
            yield member["data"]
        while stream.read(_DRAINED_BYTES):  # a command that is cut off in its last bytes would tell of it
            pass


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """A tar's bytes. webdataset's own way to tell what opens a URL would ask the environment, which may turn
    any URL into a command."""
    from webdataset.gopen import gopen_curl, gopen_pipe

    match kind_of(path):
        case "file" | "store":
            with storage.open_stream(path) as stream:
                yield stream
            return
        case "pipe":
            process = gopen_pipe(f"pipe:{path[len('pipe:') :]}")
        case "http":
            process = gopen_curl(path)
    try:
        yield process
        process.close()  # raises where it ended badly
    except BaseException:
        process.ignore_errors = True
        process.proc.kill()  # one that waits for its server would be waited for
        process.close()
        raise


def _require_reader() -> None:
    """See that the reader is there, where the user still looks."""
    with needing("data.path is read as a stream by webdataset", install="pip install 'lvd[stream]'"):
        import webdataset  # noqa: F401


def _told(error: Exception) -> str:
    """What went wrong; webdataset adds what it was reading to the words."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else error.args[:1] or ("",)
    return f"{type(error).__name__}: {words if isinstance(words, str) else words[0]}"


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
