"""Shards are written as tarfile writes them, the same bytes every time, and read back as they were."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from curation.errors import ConfigError, IntegrityError
from curation.shard import write
from curation.shard.sample import (
    Sample,
    decode_members,
    encode_members,
    encode_meta,
    sample_bytes,
    stored_names,
)
from curation.tar_headers import tar_bytes, tar_header

MakeSample = Callable[..., Sample]


def _by_tarfile(samples: list[Sample]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            for name, data in encode_members(sample):
                info = tarfile.TarInfo(f"{sample.key}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("sizes", [[0], [1, 511, 512, 513], [9 << 20, 5, 17 << 20], [3] * 700])
def test_the_tar_is_the_one_that_tarfile_writes(
    tmp_path: Path, sizes: list[int], make_sample: MakeSample
) -> None:
    # Above the flush size, below it, and with more pieces than one writev takes.
    samples = [
        make_sample(1000 * i, size + (i if size == 3 else 0), txt=b"a") for i, size in enumerate(sizes)
    ]
    receipt = write.write_shard(tmp_path / "x-000000.tar", iter(samples))
    tar = (tmp_path / "x-000000.tar").read_bytes()
    assert tar == _by_tarfile(samples)
    assert (receipt.name, receipt.num_samples, receipt.num_bytes) == ("x-000000.tar", len(sizes), len(tar))
    assert receipt.sha256 == hashlib.sha256(tar).hexdigest()
    for row in receipt.index.to_pylist():
        data = dict(encode_members(samples[row["sample"]]))[row["name"]]
        assert row["key"] == samples[row["sample"]].key
        assert tar[row["offset"] : row["offset"] + row["num_bytes"]] == data


def test_equal_samples_give_equal_bytes_and_order_matters_not_within_a_sample(
    tmp_path: Path, make_sample: MakeSample
) -> None:
    one = make_sample(1, txt=b"a", cls=b"3")
    other = Sample(one.key, one.ext, one.data, dict(reversed(one.meta.items())), {"cls": b"3", "txt": b"a"})
    receipts = [
        write.write_shard(tmp_path / f"{i}.tar", [s], name="x.tar") for i, s in enumerate((one, other))
    ]
    assert receipts[0] == receipts[1]


def test_meta_is_plain_deterministic_json() -> None:
    encoded = encode_meta({"b": 0.1, "a": "Å\udc80", "c": None, "d": 1.0})
    assert encoded == '{"a":"Å\\udc80","b":0.1,"c":null,"d":1.0}'.encode()
    assert json.loads(encoded)["a"] == "Å\udc80"
    with pytest.raises(ValueError, match="JSON compliant"):
        encode_meta({"score": float("nan")})


def test_names_of_sidecars_by_hand() -> None:
    had = ["txt", "TXT", "json", "jpg", "__key__", "a/b", "seg.png", "x" * 68, "sidecar.0", "", "ü"]
    assert stored_names("jpg", had) == {
        "TXT": "TXT",
        "seg.png": "seg.png",
        "sidecar.0": "sidecar.0",
        "sidecar.1": "",
        "sidecar.2": "__key__",
        "sidecar.3": "a/b",
        "sidecar.4": "jpg",
        "source.json": "json",
        "sidecar.5": "txt",
        "sidecar.6": "x" * 68,
        "sidecar.7": "ü",
    }
    assert stored_names("jpg", ["json", "source.json"]) == {"source.json": "source.json", "sidecar.0": "json"}


_NAMES = st.one_of(
    st.text(max_size=80), st.sampled_from(["json", "jpg", "JSON", "x.y", "__url__", "sidecar.1"])
)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(_NAMES, st.binary()))
def test_any_sidecars_come_back(sidecars: dict[str, bytes]) -> None:
    sample = Sample("0" * 32, "jpg", b"data", {"image_id": "0" * 32}, sidecars)
    members = encode_members(sample)
    assert decode_members(sample.key, members) == sample
    assert len({name.lower() for name, _ in members}) == len(members)
    for name, data in members:
        assert base_plus_ext(f"{sample.key}.{name}") == (sample.key, name)
        header = tarfile.TarInfo.frombuf(tar_header(f"{sample.key}.{name}", len(data)), "ascii", "strict")
        assert (header.name, header.size) == (f"{sample.key}.{name}", len(data))


@pytest.mark.parametrize("sizes", [[0], [1, 2, 3], [512, 513, 5000], list(range(400, 460))])
def test_sample_bytes_foretells_the_size(
    tmp_path: Path, sizes: list[int], make_sample: Callable[..., Sample]
) -> None:
    samples = [make_sample(5000 + i, size, txt=b"t" * size) for i, size in enumerate(sizes)]
    receipt = write.write_shard(tmp_path / "x.tar", samples)
    assert receipt.num_bytes == tar_bytes(sum(sample_bytes(sample) for sample in samples))


def test_what_no_shard_can_hold(tmp_path: Path, make_sample: MakeSample) -> None:
    sample = make_sample(1)
    with pytest.raises(IntegrityError, match="twice"):
        write.write_shard(tmp_path / "x.tar", [sample, make_sample(2), sample])
    with pytest.raises(IntegrityError, match="empty"):
        write.write_shard(tmp_path / "x.tar", [])
    for key, ext in [
        ("../../etc/passwd", "jpg"),
        (sample.key, "json"),
        (sample.key, "JPG"),
        (sample.key, "a.b"),
    ]:
        with pytest.raises(ConfigError, match="32 hexadecimal digits"):
            write.write_shard(tmp_path / "x.tar", [Sample(key, ext, b"", {})])


def test_short_writes_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_sample: MakeSample
) -> None:
    samples = [make_sample(i, 5000) for i in range(20)]
    monkeypatch.setattr(os, "writev", lambda handle, pieces: os.write(handle, b"".join(pieces)[:777]))
    receipt = write.write_shard(tmp_path / "x.tar", samples)
    assert (tmp_path / "x.tar").read_bytes() == _by_tarfile(samples)
    assert receipt.sha256 == hashlib.sha256(_by_tarfile(samples)).hexdigest()


def test_a_full_disk_is_an_os_error(make_sample: MakeSample) -> None:
    with pytest.raises(OSError, match="No space left"):
        write.write_shard("/dev/full", [make_sample(1)])
