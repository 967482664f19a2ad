"""What counts of a task and what does not is what the types of its fields say."""

from dataclasses import dataclass, replace
from typing import Annotated

import pytest
from pydantic import BaseModel

from pipelines.engine.digest import Unhashed, Without, digest_of, narrowed, plain
from pipelines.engine.step import FileRef
from pipelines.rows.parts import FilesOf, Part, PlacesOf


class Rule(BaseModel):
    radius: int = 3
    threads: int = 1


@dataclass(frozen=True)
class Task:
    rule: Annotated[Rule, Without(("threads",), "the same bytes on any number of cores")]
    part: Annotated[Part, FilesOf("described", "copy_vectors")]
    parts: Annotated[tuple[Part, ...], PlacesOf("images")]
    centroids: FileRef | None = None
    where: Annotated[str, Unhashed("it stands in words alone")] = "here"


def ref(name: str) -> FileRef:
    return FileRef(f"/run/{name}", len(name), f"sha256 of {name}")


PART = Part(1, "web", "uncurated", 10, 5, ref("images"), ref("described"), ref("embeddings"), None, ref("v"))
TASK = Task(Rule(), PART, (PART,))


@pytest.mark.parametrize(
    "other",
    [
        replace(TASK, rule=Rule(radius=4)),
        replace(TASK, part=replace(PART, described=ref("other"))),
        replace(TASK, part=replace(PART, embeddings=ref("other"))),
        replace(TASK, part=replace(PART, descriptors=ref("own ones"))),
        replace(TASK, parts=(replace(PART, offset=11),)),
        replace(TASK, parts=(replace(PART, pool="other"),)),
        replace(TASK, parts=(PART, PART)),
        replace(TASK, centroids=ref("centroids")),
    ],
)
def test_what_is_read_counts(other: Task) -> None:
    assert digest_of(other) != digest_of(TASK)


@pytest.mark.parametrize(
    "other",
    [
        replace(TASK, rule=Rule(threads=8)),
        replace(TASK, where="there"),
        replace(TASK, part=replace(PART, offset=0, number=0, images=ref("other"), verdicts=None)),
        replace(TASK, parts=(replace(PART, described=None),)),
        replace(TASK, parts=(replace(PART, images=ref("images")._replace(path="/moved")),)),
    ],
)
def test_what_is_not_read_does_not_count(other: Task) -> None:
    assert digest_of(other) == digest_of(TASK)


def test_the_work_gets_what_its_task_says_that_it_reads() -> None:
    found = narrowed(replace(TASK, part=replace(PART, descriptors=ref("descriptors"))))
    assert found.part == Part(0, "", "uncurated", 0, 5, None, ref("described"), None, ref("descriptors"))  # type: ignore[arg-type]
    assert found.parts == (Part(1, "web", "uncurated", 10, 5, ref("images")),)
    assert narrowed(TASK).part.copy_vectors == ref("embeddings")


def test_a_name_counts_too() -> None:
    @dataclass(frozen=True)
    class One:
        first: int | None = None
        second: int | None = None

    assert digest_of(One(first=1)) != digest_of(One(second=1))


def test_a_value_of_which_no_rule_speaks_is_an_error() -> None:
    with pytest.raises(TypeError, match="no rule says what counts of a object"):
        plain({"a": [object()]})
