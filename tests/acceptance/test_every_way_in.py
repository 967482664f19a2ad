"""The same real photographs by every way in: the same ids, bytes and decisions, whichever way they came."""

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback import answer, serving
from outcome import Outcome
from s3_server import S3

from pipelines.answers.verify import verify
from pipelines.config.run_config import validate
from pipelines.engine.progress import Progress
from pipelines.run import run

pytestmark = pytest.mark.accept

# How many photographs a pool has, and where below `shared/real` they lie.
POOLS = {
    "trusted": (80, "imagenette/train"),
    "web": (220, "imagenette/train"),
    "held": (20, "imagenette/val"),
}
ROLES = {"trusted": "curated", "web": "uncurated", "held": "holdout"}
PER_FILE = 70  # photographs of a tar, a parquet file, …
NAMES_OF_WAY = {"uri", "key", "by_key"}  # what may differ from way to way

Pool = Mapping[str, bytes]  # by name, in order
Source = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """A run's dataset, without what names the way."""

    image_ids: list[str | None]
    decisions: list[dict[str, Any]]
    members: list[tuple[str, str, bytes]]  # shard, name, bytes; without KEY.json and sidecars
    metas: list[dict[str, Any]]
    sidecars: list[bytes]


@pytest.fixture(scope="module")
def pools(shared_dir: Path) -> dict[str, Pool]:
    """Photographs of all classes; the uncurated pool has the curated ones' neighbours, copies and leaks."""
    found: dict[str, Pool] = {}
    files = {
        folder: sorted(p for p in (shared_dir / "real" / folder).rglob("*") if p.is_file())
        for folder in {folder for _, folder in POOLS.values()}
    }
    for offset, (pool, (number, folder)) in enumerate(POOLS.items()):
        step = len(files[folder]) // number
        chosen = files[folder][offset % step :: step][:number]
        found[pool] = {f"{i:05d}.jpg": path.read_bytes() for i, path in enumerate(chosen)}
        assert len(found[pool]) == number
    web = dict(found["web"])
    for i in range(5):
        web[f"{i:05d}.jpg"] = found["trusted"][f"{i:05d}.jpg"]  # equal bytes in two pools
        web[f"{i + 5:05d}.jpg"] = found["held"][f"{i:05d}.jpg"]  # leaks
        web[f"{i + 10:05d}.jpg"] = web[f"{i + 15:05d}.jpg"]
    web["00219.jpg"] = web["00218.jpg"][:3000]  # cut short
    return found | {"web": web}


def caption(name: str) -> dict[str, Any]:
    return {"caption": f"photograph {name}"}


def groups(pool: Pool) -> Iterator[tuple[str, dict[str, bytes]]]:
    names = list(pool)
    for start in range(0, len(names), PER_FILE):
        yield f"{start // PER_FILE:03d}", {name: pool[name] for name in names[start : start + PER_FILE]}


def encoded(name: str) -> bytes:
    return json.dumps(caption(name), ensure_ascii=False, separators=(",", ":")).encode()


def as_folder(pool: Pool, root: Path) -> Source:
    root.mkdir(parents=True)
    for name, data in pool.items():
        (root / name).write_bytes(data)
        (root / name).with_suffix(".json").write_bytes(encoded(name))
    return {"kind": "folder", "path": str(root)}


def tar_of(group: Pool) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in group.items():
            for member, content in ((name, data), (Path(name).stem + ".json", encoded(name))):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def as_tars(pool: Pool, root: Path) -> Source:
    root.mkdir(parents=True)
    for number, group in groups(pool):
        (root / f"{number}.tar").write_bytes(tar_of(group))
    return {"kind": "tars", "path": str(root)}


def as_compressed_tars(pool: Pool, root: Path) -> Source:
    root.mkdir(parents=True)
    for number, group in groups(pool):
        (root / f"{number}.tar.gz").write_bytes(gzip.compress(tar_of(group), compresslevel=1))
    return {"kind": "tars", "path": str(root)}


def as_parquet(pool: Pool, root: Path) -> Source:
    root.mkdir(parents=True)
    for number, group in groups(pool):
        columns = {
            "jpg": list(group.values()),
            "caption": [caption(name)["caption"] for name in group],
        }
        pq.write_table(pa.table(columns), root / f"{number}.parquet", row_group_size=16)
    return {"kind": "parquet", "path": str(root)}


def as_huggingface(pool: Pool, root: Path) -> Source:
    import datasets

    columns = {
        "image": [{"bytes": data, "path": None} for data in pool.values()],
        "caption": [caption(name)["caption"] for name in pool],
    }
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(root, num_shards=2)
    return {"kind": "huggingface", "path": str(root)}


def as_warc(pool: Pool, root: Path) -> Source:
    root.mkdir(parents=True)
    for number, group in groups(pool):
        records = [_record(name, data) for name, data in group.items()]
        (root / f"{number}.warc.gz").write_bytes(b"".join(gzip.compress(r, 1) for r in records))
    return {"kind": "warc", "path": str(root)}


def _record(name: str, data: bytes) -> bytes:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + data
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\n"
        "WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>\r\n"
        f"WARC-Target-URI: http://example.org/{name}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def as_urls(pool: Pool, root: Path, base: str) -> Source:
    root.mkdir(parents=True)
    with (root / "list.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["url", "caption"])
        writer.writerows([f"{base}/{name}", caption(name)["caption"]] for name in pool)
    download = {"allow_private": ["127.0.0.0/8"], "max_requests_per_host": 16}
    return {"kind": "urls", "path": str(root), "unit_rows": 50, "download": download}


# Ways whose sidecars are the captions; WARC has the crawl's own.
WITH_CAPTIONS = ("folder", "tars", "tar.gz", "parquet", "huggingface", "S3 folder", "S3 tars", "urls")


@pytest.fixture(scope="module")
def reference(pools: dict[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What comes of plain folders."""
    root = tmp_path_factory.mktemp("folder")
    return curate({name: as_folder(pool, root / name) for name, pool in pools.items()}, root / "run")


def curate(sources: Mapping[str, Source], run_dir: Path) -> Result:
    config = {
        "name": "ways",
        "run_dir": str(run_dir),
        "seed": 5,
        "pools": {name: {"role": ROLES[name], "sources": [source]} for name, source in sources.items()},
        "ingest": {"part_rows": 64},
        "describe": {"embed": {"embedder": "gist"}, "descriptor": "gist"},
        "dedup": {"cosine_threshold": 0.98},
        "decontaminate": {"cosine_threshold": 0.98},
        "cluster": {"num_clusters": 10},
        "shard": {"max_samples": 40},
        "executor": {"kind": "local"},
    }
    result = run(validate(config, where="the test's config"), progress=Progress(quiet=True))
    assert result.exit_code == 0, result.manifest and result.manifest["unread"]
    assert not verify(str(run_dir))
    return read_result(Outcome(run_dir))


def read_result(outcome: Outcome) -> Result:
    members, metas, sidecars = [], [], []
    for path in outcome.shards:
        with tarfile.open(path) as tar:
            for info in tar:
                stream = tar.extractfile(info)
                assert stream is not None
                data, (_, _, name) = stream.read(), info.name.partition(".")
                match name:
                    case "json":
                        metas.append(without_names(json.loads(data)))
                    case "source.json":
                        sidecars.append(data)
                    case _:
                        members.append((path.name, info.name, data))
    rows = [without_names(row) for row in outcome.rows]
    return Result([row["image_id"] for row in rows], rows, members, metas, sidecars)


def without_names(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in NAMES_OF_WAY}


def check(found: Result, reference: Result, way: str) -> None:
    assert found.image_ids == reference.image_ids
    assert found.decisions == reference.decisions
    assert found.members == reference.members
    assert found.metas == reference.metas
    if way in WITH_CAPTIONS:
        assert found.sidecars == reference.sidecars
    assert len(found.sidecars) == len(found.members)


def test_the_photographs_are_worth_comparing(reference: Result) -> None:
    reasons = {row["reason"] for row in reference.decisions}
    assert {
        "curated",
        "retrieved_by_sample",
        "exact_copy",
        "leaks_holdout",
        "truncated",
        "holdout",
    } <= reasons
    assert len(reference.members) > 80
    print(f"\n{len(reference.decisions)} photographs, {len(reference.members)} selected, {sorted(reasons)}")


LOCAL_WAYS: dict[str, Callable[[Pool, Path], Source]] = {
    "tars": as_tars,
    "tar.gz": as_compressed_tars,
    "parquet": as_parquet,
    "huggingface": as_huggingface,
    "warc": as_warc,
}


@pytest.mark.parametrize("way", LOCAL_WAYS)
def test_a_way_on_a_disk(way: str, pools: dict[str, Pool], reference: Result, tmp_path: Path) -> None:
    sources = {name: LOCAL_WAYS[way](pool, tmp_path / "in" / name) for name, pool in pools.items()}
    check(curate(sources, tmp_path / "run"), reference, way)


@pytest.mark.parametrize("way", ["S3 folder", "S3 tars"])
def test_a_way_over_s3(
    way: str, pools: dict[str, Pool], reference: Result, tmp_path: Path, *, s3: S3
) -> None:
    write = as_folder if way == "S3 folder" else as_tars
    sources = {}
    for name, pool in pools.items():
        local = write(pool, tmp_path / "in" / name)
        sources[name] = local | {"path": s3.upload(tmp_path / "in" / name, name)}
    check(curate(sources, tmp_path / "run"), reference, way)


def test_a_list_of_urls(pools: dict[str, Pool], reference: Result, tmp_path: Path) -> None:
    with serving() as server:
        for name, pool in pools.items():
            server.routes |= {f"/{name}/{file}": answer(data) for file, data in pool.items()}
        sources = {
            name: as_urls(pool, tmp_path / "in" / name, server.url(f"/{name}"))
            for name, pool in pools.items()
        }
        check(curate(sources, tmp_path / "run"), reference, "urls")
