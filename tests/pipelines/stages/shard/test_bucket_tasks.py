"""What a bucket's identity hangs on, and what not."""

from dataclasses import replace

from curation.pictures.decode import DecodeConfig
from curation.shard.layout import ShardConfig
from pipelines.engine.digest import narrowed
from pipelines.engine.step import FileRef, Item, Step
from pipelines.rows.parts import Part
from pipelines.stages.retrieve.select import Outcomes
from pipelines.stages.shard import shard


def file(name: str) -> FileRef:
    return FileRef(f"/run/{name}", 1, name)


def part(number: int, **files: FileRef) -> Part:
    own = {"described": file(f"d{number}"), **files}
    return Part(number, "web", "uncurated", 10 * number, 10, file(f"i{number}"), **own)


PARTS = (part(0), part(1), part(2))
OUTCOMES = Outcomes(file("outcome"), file("by"), file("score"), "outcomes")
TASK = shard.BucketTask(PARTS, PARTS[:1], OUTCOMES, file("cluster"))
SETTINGS = shard.BucketSettings(ShardConfig(), 0, DecodeConfig())


def identity(task: shard.BucketTask, settings: shard.BucketSettings = SETTINGS) -> str:
    return Step("shard", 2, settings, shard._load, "shard").identity(Item(task))


def test_of_other_parts_a_bucket_reads_the_keys_alone() -> None:
    described = (PARTS[0], PARTS[1], part(2, described=file("other")))
    assert identity(replace(TASK, parts=described)) == identity(TASK)
    listed = (*PARTS[:2], replace(PARTS[2], images=file("other")))
    assert identity(replace(TASK, parts=listed)) != identity(TASK)
    assert all(one.described is None for one in narrowed(TASK).parts)


def test_of_its_own_parts_it_reads_more() -> None:
    for name in ("described", "faces"):
        assert identity(replace(TASK, bucket=(part(0, **{name: file("other")}),))) != identity(TASK)
    for name in ("embeddings", "scores", "verdicts"):
        assert identity(replace(TASK, bucket=(part(0, **{name: file("other")}),))) == identity(TASK)


def test_a_bucket_is_told_by_its_parts() -> None:
    larger = replace(SETTINGS, config=ShardConfig(bucket_bytes=1))
    assert identity(TASK, larger) == identity(TASK)
    assert identity(replace(TASK, bucket=PARTS[1:2]), larger) != identity(TASK)
    assert identity(TASK, replace(SETTINGS, config=ShardConfig(max_samples=7))) != identity(TASK)
