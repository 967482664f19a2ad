"""The same images and crops at every step, whoever makes them, from wherever they come."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from drawn_dataset import draw_jpeg, write_dataset_of
from ranks import start_server
from tiny import GLOBAL_PX, LOCAL_PX, NUM_LOCAL, NUM_PATCHES, tiny_config

from curation.errors import ExecutorError, IntegrityError
from pretrain.data.config import DataConfig
from pretrain.data.images import Images
from pretrain.data.loader import CropBatch, Share, StepDataset, batches, order_of, raised
from pretrain.data.order import WindowShuffle
from pretrain.data.spool import Spool

CONFIG = tiny_config()


def dataset_of(path: str, folder: Path, share: Share, *, seed: int = 0, window: int = 100_000) -> StepDataset:
    images = Images(path, cache=folder / "cache", spool=Spool(folder / "spool", 1 << 30))
    return StepDataset(
        images,
        order_of(images, DataConfig(window_images=window), seed=seed),
        share,
        crops=CONFIG.crops,
        masking=CONFIG.masking,
        grid=(CONFIG.grid, CONFIG.grid),
        seed=seed,
        read_threads=3,
    )


def crops_by_image(batch: CropBatch) -> list[tuple[int, str]]:
    """Row and digest of the crops of each image."""
    num = len(batch.rows)
    globals_, locals_ = (x.unflatten(0, (-1, num)) for x in (batch.globals_, batch.locals_))
    return [
        (
            int(row),
            hashlib.sha256(globals_[:, i].numpy().tobytes() + locals_[:, i].numpy().tobytes()).hexdigest(),
        )
        for i, row in enumerate(batch.rows)
    ]


def test_shapes(drawn: Path, tmp_path: Path) -> None:
    batch = dataset_of(str(drawn), tmp_path, Share(8))[3]
    assert batch.step == 3
    assert batch.globals_.shape == (16, 3, GLOBAL_PX, GLOBAL_PX)
    assert batch.locals_.shape == (8 * NUM_LOCAL, 3, LOCAL_PX, LOCAL_PX)
    assert batch.globals_.dtype is batch.locals_.dtype is torch.uint8
    assert batch.masks.shape == (16, NUM_PATCHES)
    assert 0 < batch.masks.any(dim=1).sum() <= 8
    assert batch.num_unreadable == 0


def test_shares_by_hand() -> None:
    assert Share(8, 1, 4).positions(2).tolist() == [18, 19]
    assert Share(6).positions(1).tolist() == [6, 7, 8, 9, 10, 11]
    # From step 10 on batches of 4, where those before had come to position 60.
    assert Share(4, 1, 2, first_step=10, first_image=60).positions(12).tolist() == [70, 71]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_share_the_batch(size: int, drawn: Path, tmp_path: Path) -> None:
    whole = dataset_of(str(drawn), tmp_path, Share(8))
    parts = [dataset_of(str(drawn), tmp_path, Share(8, rank, size)) for rank in range(size)]
    for step in (0, 4, 30):  # the fourth batch is on the border of two epochs
        found = [image for part in parts for image in crops_by_image(part[step])]
        assert found == crops_by_image(whole[step])
    masks = [part[0].masks for part in parts]
    assert all((a != b).any() for i, a in enumerate(masks) for b in masks[:i])


def test_an_image_has_other_crops_in_another_epoch_and_under_another_seed(
    drawn: Path, tmp_path: Path
) -> None:
    epochs = [dict(crops_by_image(dataset_of(str(drawn), tmp_path, Share(37))[step])) for step in range(2)]
    other = dict(crops_by_image(dataset_of(str(drawn), tmp_path, Share(37), seed=1)[0]))
    for row in range(37):
        assert len({epochs[0][row], epochs[1][row], other[row]}) == 3


def test_the_crop_batch_is_in_the_order_of_crops(drawn: Path, tmp_path: Path) -> None:
    dataset = dataset_of(str(drawn), tmp_path, Share(4))
    batch = dataset[0]
    for i, position in enumerate(Share(4).positions(0)):
        single = replace(dataset, share=Share(1))[int(position)]
        assert torch.equal(batch.globals_[[i, 4 + i]], single.globals_)
        assert torch.equal(batch.locals_[[i, 4 + i]], single.locals_)


@pytest.fixture(scope="module")
def expected(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> list[CropBatch]:
    dataset = dataset_of(str(drawn), tmp_path_factory.mktemp("expected"), Share(8))
    return [dataset[step] for step in range(7)]


def same(a: CropBatch, b: CropBatch) -> bool:
    return all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize(("workers", "first"), [(0, 0), (0, 3), (2, 0), (1, 4)])
def test_workers_and_the_first_step_change_nothing(
    workers: int, first: int, drawn: Path, expected: list[CropBatch], tmp_path: Path
) -> None:
    start_server()
    dataset = dataset_of(str(drawn), tmp_path, Share(8))
    config = DataConfig(workers=workers, prefetch=1)
    found = list(batches(dataset, config, steps=range(first, 7), pin_memory=False))
    assert len(found) == 7 - first
    assert all(same(a, b) for a, b in zip(found, expected[first:], strict=True))


@pytest.fixture
def remote(drawn: Path) -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    fs.put(str(drawn), "/bucket/run", recursive=True)
    yield "memory://bucket/run"
    fs.rm("/bucket", recursive=True)


def test_shards_of_a_store_give_the_same_crops(drawn: Path, remote: str, tmp_path: Path) -> None:
    """Another order, and what stands at a position is made into the same crops."""
    far = dataset_of(remote, tmp_path, Share(8), window=10)
    assert isinstance(far.order, WindowShuffle)
    near = dataset_of(str(drawn), tmp_path, Share(8))
    near.order = far.order
    for step in range(5):
        assert same(far[step], near[step])
    rows = np.concatenate([far[step].rows.numpy() for step in range(5)])
    assert sorted(rows[:37]) == list(range(37))


def test_the_next_image_takes_an_unreadable_ones_place(tmp_path: Path) -> None:
    pictures = [draw_jpeg(n) for n in range(9)]
    spoilt = write_dataset_of(tmp_path / "spoilt", [[*pictures[:3], b"no picture", b"", *pictures[5:]]])
    sound = write_dataset_of(tmp_path / "sound", [[*pictures[:3], *[pictures[5]] * 2, *pictures[5:]]])
    a, b = (dataset_of(str(path), tmp_path, Share(9))[0] for path in (spoilt, sound))
    assert a.num_unreadable == 3  # row 3 is two images before the next good one, row 4 one
    assert crops_by_image(a) == crops_by_image(b)


def test_no_readable_image_at_all(tmp_path: Path) -> None:
    spoilt = write_dataset_of(tmp_path / "spoilt", [[b"no picture %d" % n for n in range(120)]])
    with pytest.raises(IntegrityError, match="among 100 in a row"):
        dataset_of(str(spoilt), tmp_path, Share(1))[0]


PROGRAM = """
import json, sys, time
import torch
from pretrain.data.config import DataConfig
from pretrain.data.loader import CropBatch, batches

class Empty(torch.utils.data.Dataset):
    def __getitem__(self, step):
        none = torch.zeros(0)
        return CropBatch(step, none, none, none, none, 0)

if __name__ == "__main__":
    torch.set_num_threads(1)
    made = batches(Empty(), DataConfig(workers=2, prefetch=1), steps=range(100_000), pin_memory=False)
    for _ in range(6):
        next(made)  # from both: they are settled
    print(json.dumps([worker.pid for worker in made._workers]), flush=True)
    for _ in range(int(sys.argv[1])):
        time.sleep(0.05)
        next(made)
    print("done", flush=True)
"""


def test_a_worker_that_is_killed_is_said(drawn: Path, tmp_path: Path) -> None:
    start_server()
    dataset = dataset_of(str(drawn), tmp_path, Share(1))
    made = batches(dataset, DataConfig(workers=1, prefetch=1), steps=range(100_000), pin_memory=False)
    crops = raised(made)
    next(crops)
    [worker] = made._workers
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(
        ExecutorError, match=rf"ended from outside\. Got: .*{worker.pid}.*goes on at the last"
    ):
        list(zip(crops, range(1000), strict=False))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/shm")
def test_a_batch_that_finds_no_shared_memory_is_said(tmp_path: Path) -> None:
    """Containers have 64 MB of it; the queue would print a traceback, and the training wait for ever."""
    program = tmp_path / "program.py"
    program.write_text(NO_ROOM)
    here = 'mount -t tmpfs -o size=1M lvd-test /dev/shm && exec "$0" "$1"'
    command = ["unshare", "--mount", "sh", "-c"]
    if subprocess.run(
        [*command, "mount -t tmpfs lvd-test /dev/shm"], check=False, capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount a small /dev/shm")
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": f"{root}:{root / 'tests/pretrain/data'}"}
    done = subprocess.run(
        [*command, here, sys.executable, str(program)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.startswith("A batch of crops finds no room in shared memory. Got: "), done
    assert "No space left on device" in done.stdout
    assert "Expected: room for 4,000,000 bytes" in done.stdout
    assert "Traceback" not in done.stderr


NO_ROOM = """
import torch
from curation.errors import ExecutorError
from pretrain.data.config import DataConfig
from pretrain.data.loader import CropBatch, batches, raised

class Large(torch.utils.data.Dataset):
    def __getitem__(self, step):
        none = torch.zeros(0)
        return CropBatch(step, torch.zeros(1_000_000), none, none, none, 0)

if __name__ == "__main__":
    try:
        list(raised(batches(Large(), DataConfig(workers=2), steps=range(100), pin_memory=False)))
    except ExecutorError as error:
        print(error)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.accept)])
def test_workers_end_with_their_parent_and_not_before(number: signal.Signals, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(
        [sys.executable, program, "20"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    with process:
        try:
            workers = json.loads(process.stdout.readline())
            assert all(map(is_running, workers))
            if number == signal.SIGTERM:
                for worker in workers:  # as when it comes to the whole group
                    os.kill(worker, number)
                assert process.stdout.readline() == "done\n"
                assert process.wait(60) == 0
            else:
                process.kill()
                process.wait()
            end = time.monotonic() + 30
            while any(map(is_running, workers)) and time.monotonic() < end:
                time.sleep(0.05)
            assert not any(map(is_running, workers))
        finally:
            process.kill()
