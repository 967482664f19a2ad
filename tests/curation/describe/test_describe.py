"""A part of images, measured."""

import hashlib
import io
import threading
import time
from contextlib import nullcontext

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float16, UInt8
from PIL import Image
from pydantic import ValidationError

from curation import schema
from curation.describe.describe import DescribeConfig, Described, describe, with_vectors
from curation.errors import ExecutorError
from curation.pictures.views import View


class Corners:
    """A stand-in for a model: a few pixels of the view, mixed with how full its batch is, as a unit row."""

    def __init__(self, batch_rows: int, *, side_px: int = 16) -> None:
        self.name = "corners"
        self.dim = 6
        self.view = View(side_px)
        self.batch_rows = batch_rows
        self.num_forwards = 0

    def embed(self, pixels: UInt8[np.ndarray, "n s s 3"]) -> Float16[np.ndarray, "n d"]:
        self.num_forwards += 1
        assert len(pixels) == self.batch_rows
        ends = np.concatenate([pixels[:, 0, 0], pixels[:, -1, -1]], axis=1).astype(np.float64) + 1
        ends[:, 0] += pixels.any(axis=(1, 2, 3)).sum()  # which rows share a batch can be seen in the result
        return (ends / np.linalg.norm(ends, axis=1, keepdims=True)).astype(np.float16)


def jpeg(seed: int, width: int = 90, height: int = 70) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


FILES = [jpeg(seed) for seed in range(9)]
FILES[2] = b""
FILES[3] = b"no image at all"
FILES[5] = FILES[5][:400]
CONFIG = DescribeConfig()


def run(
    files: list[bytes], *, config: DescribeConfig = CONFIG, batch_rows: int = 4, **more: object
) -> Described:
    fields = {"embedder": Corners(batch_rows), "descriptor": None, **more}
    return describe(len(files), files.__getitem__, config=config, **fields)  # type: ignore[arg-type]


def assert_equal(one: Described, other: Described) -> None:
    assert one.table.equals(other.table)
    for a, b in ((one.embeddings, other.embeddings), (one.descriptors, other.descriptors)):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert a.tobytes() == b.tobytes()
    assert one.read_errors == other.read_errors


def test_a_mixed_part() -> None:
    made = run(FILES)
    table = made.table
    assert table.schema == schema.DESCRIBED
    lost = [2, 3, 5]
    reasons = table["reason"].to_pylist()
    assert [i for i, reason in enumerate(reasons) if reason is not None] == lost
    assert (reasons[2], reasons[3], reasons[5]) == ("empty", "not_an_image", "truncated")
    # Every file that was read has its hash, the broken ones too.
    assert table["sha256"].to_pylist() == [hashlib.sha256(data).digest() for data in FILES]
    assert table["num_bytes"].to_pylist() == [len(data) for data in FILES]
    assert table["width"][0].as_py() == 90
    assert table["height"][0].as_py() == 70
    assert table["format"][0].as_py() == "JPEG"
    for name in ("phash", "pixel_std"):
        assert [i for i, value in enumerate(table[name].to_pylist()) if value is None] == lost
    assert f"{table['phash'][0].as_py():016x}" == str(imagehash.phash(Image.open(io.BytesIO(FILES[0]))))
    assert table["has_embedding"].to_pylist() == [i not in lost for i in range(9)]
    assert made.embeddings is not None
    assert made.embeddings.any(axis=1).tolist() == [i not in lost for i in range(9)]
    assert made.descriptors is None


def test_every_row_is_told_once_it_is_done() -> None:
    told: list[int] = []
    assert_equal(run(FILES, tell=told.append), run(FILES))
    assert told == list(range(1, len(FILES) + 1))


def test_rows_that_cannot_or_shall_not_be_read() -> None:
    asked: list[int] = []

    def read(row: int) -> bytes:
        if row == 1:
            raise FileNotFoundError("gone")
        return FILES[0]

    made = describe(
        4,
        read,
        embedder=None,
        descriptor=None,
        config=CONFIG,
        known={2: "crashed_decoder"},
        guard=lambda row: (asked.append(row), nullcontext())[1],
    )
    assert sorted(asked) == [0, 3]
    assert made.table["reason"].to_pylist() == [None, "unreadable", "crashed_decoder", None]
    assert made.table["sha256"].null_count == 2
    assert made.read_errors == {1: "FileNotFoundError: gone"}
    assert made.embeddings is None
    assert not any(made.table["has_embedding"].to_pylist())


def test_another_exception_of_the_reader_is_no_image_s_fault() -> None:
    def read(row: int) -> bytes:
        raise RuntimeError(f"bug at {row}")

    with pytest.raises(RuntimeError, match="bug at 0"):
        describe(300, read, embedder=None, descriptor=None, config=CONFIG)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_without_memory_the_picture_is_named_and_no_row_is_dropped(error: Exception) -> None:
    def read(row: int) -> bytes:
        if row == 3:
            raise error
        return jpeg(row)

    with pytest.raises(ExecutorError, match="no memory to read and decode an image: web/3") as caught:
        describe(6, read, embedder=None, descriptor=None, config=CONFIG, name="web/{}".format)
    for part in ("decode_threads", "max_pixels", "ulimit -v"):
        assert part in caught.value.remedy


def test_batches_are_rows_in_order_with_empty_slots() -> None:
    model = Corners(4)
    files = [jpeg(1)] * 4 + [b""] * 4 + [jpeg(1), b""]
    made = run(files, embedder=model)
    assert model.num_forwards == 2  # the batch without a picture is not run
    assert made.embeddings is not None
    # Rows 0 and 8 are one picture, in batches of four and of one.
    assert made.embeddings[0].tobytes() == made.embeddings[3].tobytes() != made.embeddings[8].tobytes()


def test_a_shared_model_runs_once_and_two_models_keep_their_own_batches() -> None:
    model = Corners(4)
    shared = run(FILES, embedder=model, descriptor=model)
    assert model.num_forwards == 3
    assert shared.embeddings is shared.descriptors
    other = Corners(3, side_px=24)
    both = run(FILES, embedder=Corners(4), descriptor=other)
    assert other.num_forwards == 3
    assert both.embeddings is not None
    assert shared.embeddings is not None
    assert both.embeddings.tobytes() == shared.embeddings.tobytes()
    alone = run(FILES, embedder=None, descriptor=Corners(3, side_px=24))
    assert both.descriptors is not None
    assert alone.descriptors is not None
    assert both.descriptors.tobytes() == alone.descriptors.tobytes()


@settings(max_examples=20, deadline=None)
@given(
    order=st.lists(st.integers(0, len(FILES) - 1), max_size=14),
    threads=st.integers(1, 5),
    batch_rows=st.integers(1, 5),
    delays=st.lists(st.integers(0, 2), min_size=14, max_size=14),
)
def test_threads_and_their_timing_change_no_bit(
    order: list[int], threads: int, batch_rows: int, delays: list[int]
) -> None:
    files = [FILES[i] for i in order]

    def read(row: int) -> bytes:
        time.sleep(delays[row] / 1000)
        return files[row]

    calm = run(files, config=DescribeConfig(decode_threads=1), batch_rows=batch_rows)
    busy = describe(
        len(files),
        read,
        embedder=Corners(batch_rows),
        descriptor=None,
        config=DescribeConfig(decode_threads=threads),
    )
    assert_equal(calm, busy)


def test_the_look_ahead_is_bounded() -> None:
    started: list[int] = []
    gap: list[int] = []

    class Watch(Corners):
        def embed(self, pixels: UInt8[np.ndarray, "n s s 3"]) -> Float16[np.ndarray, "n d"]:
            seen = -1
            while seen != len(started):  # the threads run as far ahead as they may, however slow the machine
                seen = len(started)
                time.sleep(0.2)
            gap.append(len(started) - self.batch_rows * (self.num_forwards + 1))
            return super().embed(pixels)

    files = [FILES[0]] * 400
    run(files, embedder=Watch(32), guard=lambda row: (started.append(row), nullcontext())[1])
    assert 32 <= gap[0] <= 64 + 1  # a whole next batch is decoded while the model runs, and not the part


def test_vectors_made_elsewhere() -> None:
    bare = run(FILES, embedder=None)
    vectors = np.tile(np.float16([0.6, 0.8]), (9, 1))
    has = np.array([True] * 8 + [False])
    made = with_vectors(bare, vectors, has)
    expected = [i not in (2, 3, 5, 8) for i in range(9)]
    assert made.table["has_embedding"].to_pylist() == expected
    assert made.table.schema == schema.DESCRIBED
    assert made.embeddings is not None
    assert made.embeddings.any(axis=1).tolist() == expected
    assert with_vectors(bare, vectors, has, into="descriptors").table.equals(bare.table)


def test_a_descriptor_is_the_embedding_s_config_with_its_own_model() -> None:
    config = DescribeConfig.model_validate({"embed": {"batch_rows": 8}, "descriptor": "timm:test_vit"})
    assert config.descriptor_embed is not None
    assert (config.descriptor_embed.embedder, config.descriptor_embed.batch_rows) == ("timm:test_vit", 8)
    assert DescribeConfig().descriptor_embed is None
    with pytest.raises(ValidationError, match="descriptor"):
        DescribeConfig(descriptor="sscd?")


def test_an_empty_part() -> None:
    made = run([])
    assert made.table.num_rows == 0
    assert made.table.schema == schema.DESCRIBED
