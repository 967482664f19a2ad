"""Batches of crops for the steps of a training, by position: any step can be made without those before it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import forkserver
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from curation.errors import ExecutorError, IntegrityError, LvdError
from curation.orphans import end_with_parent
from pretrain.data.augment import CropConfig, Crops, MultiCrop
from pretrain.data.config import DataConfig
from pretrain.data.image_set import ImageSet
from pretrain.data.masking import MaskingConfig, mask_batch
from pretrain.data.order import Order
from pretrain.data.pictures import Picture, picture_of
from pretrain.data.stream import StreamedImages

MAX_UNREADABLE_IN_A_ROW = 100
_AGAIN = "then run the command again: it goes on at the last checkpoint"
_MASKS = 1  # tells the seeds of masks from those of crops


class CropBatch(NamedTuple):
    """The crops of one rank for one step, as bytes or samples, with the masks of the global ones."""

    step: int
    # Crop 1 of all images, then crop 2; of local ones crop by crop, each of all images.
    globals_: UInt8[Tensor, "two_b c g_h g_w"] | Float32[Tensor, "two_b c g_h g_w"]
    locals_: UInt8[Tensor, "local_b c l_h l_w"] | Float32[Tensor, "local_b c l_h l_w"]
    masks: Bool[Tensor, "two_b n"]
    rows: Int64[Tensor, "b"]  # of the data set
    num_unreadable: int  # images in whose place others were taken
    # The regions of globals_, in their order, at `crops.gram_size_px`.
    gram: UInt8[Tensor, "two_b c m_h m_w"] | Float32[Tensor, "two_b c m_h m_w"] | None = None


@dataclass(frozen=True)
class Share:
    """Which part of the global batch a rank has: the positions are dealt in runs, rank by rank.

    Positions count on where a training goes on with another batch than the one it began with.
    """

    batch_images: int  # of all ranks
    rank: int = 0
    num_ranks: int = 1
    first_step: int = 0  # that of this training, and the position at which it takes its first image
    first_image: int = 0

    def positions(self, step: int) -> Int64[np.ndarray, "b"]:
        """The positions of this rank at a step."""
        each = self.batch_images // self.num_ranks
        start = self.first_image + (step - self.first_step) * self.batch_images + self.rank * each
        return np.arange(start, start + each, dtype=np.int64)


@dataclass
class StepDataset(Dataset[CropBatch]):
    """The batch of every step, made from its number alone.

    Attributes:
        images: of the data set.
        order: which image stands at which position.
        share: of this rank.
        crops, masking: what is made of an image.
        grid: rows and columns of patches of a global crop.
        seed: of crops and masks.
        read_threads: reads at once.
    """

    images: ImageSet
    order: Order
    share: Share
    crops: CropConfig
    masking: MaskingConfig
    grid: tuple[int, int]
    seed: int
    read_threads: int

    def __getitem__(self, step: int) -> CropBatch:
        if isinstance(self.images, StreamedImages):
            self._begin(self.images, step)
        positions = self.share.positions(step)
        rows = self.order.rows(positions)
        made, num_unreadable = self._make(rows, positions)
        rng = np.random.default_rng((self.seed, _MASKS, int(positions[0])))
        gram = [crops.gram for crops in made if crops.gram is not None]
        return CropBatch(
            step=step,
            globals_=torch.stack([crops.globals_ for crops in made], dim=1).flatten(0, 1),
            locals_=torch.stack([crops.locals_ for crops in made], dim=1).flatten(0, 1),
            gram=torch.stack(gram, dim=1).flatten(0, 1) if gram else None,
            masks=torch.from_numpy(mask_batch(2 * len(rows), self.grid, self.masking, rng)),
            rows=torch.from_numpy(rows),
            num_unreadable=num_unreadable,
        )

    def _begin(self, images: StreamedImages, step: int) -> None:
        """Begin the stream of this process with its first step: worker w is given w steps after the first."""
        worker = get_worker_info()
        number, num_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        reader = self.share.rank * num_workers + number
        images.begin(reader, self.share.num_ranks * num_workers, seed=(self.seed, step - number))

    @cached_property
    def _multi_crop(self) -> MultiCrop:
        return MultiCrop(self.crops)

    def _make(
        self, rows: Int64[np.ndarray, "b"], positions: Int64[np.ndarray, "b"]
    ) -> tuple[list[Crops], int]:
        if not self.images.reads_wait:
            found = [self._pixels(int(row)) for row in rows]
        else:
            with ThreadPoolExecutor(self.read_threads) as threads:
                found = list(threads.map(self._pixels, rows.tolist()))
        made = [
            self._multi_crop(
                torch.from_numpy(pixels).permute(2, 0, 1), seed=seed_of(self.seed, int(position))
            )
            for (pixels, _), position in zip(found, positions, strict=True)
        ]
        return made, sum(num for _, num in found)

    def _pixels(self, row: int) -> tuple[Picture, int]:
        """The pixels of an image, or of the next one that can be decoded, and how many could not.

        Every image of a shard was decoded when it was curated. One that cannot be now was damaged since, or
        was put there by somebody else: it is counted, and the training goes on.
        """
        for num_skipped in range(min(MAX_UNREADABLE_IN_A_ROW, len(self.images))):
            data = self.images.read((row + num_skipped) % len(self.images))
            pixels = picture_of(data, self.crops)
            if pixels is not None:
                return pixels, num_skipped
        raise IntegrityError(
            f"No picture can be decoded among {num_skipped + 1} in a row",
            got=f"rows {row} … {row + num_skipped} of {self.images.name}",
            expected="the images that were curated"
            if self.crops.bands is None
            else f"TIFFs with the bands {self.crops.bands}",
            remedy="Check the shards: lvd verify RUN_DIR",
        )


def order_of(images: ImageSet, config: DataConfig, *, seed: int) -> Order:
    """Which image stands at which position; `read` takes what comes out."""
    return images.order(seed=seed, window_images=config.window_images)


def batches(
    dataset: StepDataset, config: DataConfig, *, steps: Sequence[int], pin_memory: bool
) -> Iterator[CropBatch | LvdError]:
    """The batches of some steps, in order, made ahead by worker processes; `raised` raises the errors in it.

    The processes are forked from a server that has imported this module and has no threads; forked from this
    process, whose threads may hold locks, they could hang.
    """
    context = None
    if config.workers:
        context = torch.multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        # The server inherits the mask: a SIGTERM to the whole process group must not end it, and with it the
        # workers, before the training has saved.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        forkserver.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return iter(
        DataLoader(
            _Carried(dataset),
            batch_size=None,
            sampler=steps,
            num_workers=config.workers,
            prefetch_factor=config.prefetch if config.workers else None,
            multiprocessing_context=context,
            worker_init_fn=_settle_worker,
            pin_memory=pin_memory,
        )
    )


@dataclass
class _Carried(Dataset[CropBatch | LvdError]):
    """A data set whose own errors are values: torch would put a worker's traceback into their words."""

    dataset: Dataset[CropBatch]

    def __getitem__(self, step: int) -> CropBatch | LvdError:
        try:
            batch = self.dataset[step]
            if get_worker_info() is not None:
                _share_memory(batch)
            return batch
        except LvdError as error:
            return error


def _share_memory(batch: CropBatch) -> None:
    """Move a batch to where the training can read it.

    The queue would do so, in a thread of its own that prints a traceback where there is no room, and the
    training would wait for the batch for ever.
    """
    tensors = [part for part in batch if isinstance(part, Tensor)]
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except RuntimeError as error:
        num_bytes = sum(tensor.nbytes for tensor in tensors)
        raise ExecutorError(
            "A batch of crops finds no room in shared memory",
            got=str(error).splitlines()[0],
            expected=f"room for {num_bytes:,} bytes, data.workers times data.prefetch times, in /dev/shm",
            remedy="Make it larger (docker run --shm-size=8g; in Kubernetes an emptyDir of medium Memory on "
            f"/dev/shm), or set data.prefetch to 1 or data.workers to 0; {_AGAIN}",
        ) from error


def raised(made: Iterator[CropBatch | LvdError]) -> Iterator[CropBatch]:
    """The batches; an error among them is raised.

    Raises:
        ExecutorError: when a worker has ended.
    """
    try:
        for batch in made:
            if isinstance(batch, LvdError):
                raise batch
            yield batch
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise ExecutorError(
            "A process that makes crops has been ended from outside",
            got=str(error),
            expected="processes that live as long as the training",
            remedy="If the kernel did it for want of memory (dmesg), set data.workers or data.prefetch "
            f"lower; {_AGAIN}",
        ) from error


def _settle_worker(_number: int) -> None:
    """Let a worker live exactly as long as the training.

    A SIGTERM to the whole process group is for the training, which needs another batch on its way to a
    checkpoint. One that is killed cannot end its workers, and torch watches the wrong process: theirs is a
    child of the server, and they keep the server alive.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    end_with_parent()
    threading.Thread(target=_end_when_asked, daemon=True).start()


def _end_when_asked() -> None:
    """End by the SIGTERM of the training itself, and by no other."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(1)


def seed_of(*numbers: int) -> int:
    """One seed out of several numbers; other numbers give another one."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
