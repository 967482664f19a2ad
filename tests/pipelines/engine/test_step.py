"""Identities, receipts, and the publishing of one item."""

import contextlib
import itertools
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest

from curation import storage
from curation.errors import IntegrityError
from pipelines.engine.digest import Unhashed
from pipelines.engine.row_notes import SCRATCH
from pipelines.engine.step import Attempt, Item, Receipt, Step, Work, find_receipt, perform


@dataclass(frozen=True)
class Shouting:
    volume: int
    tone: Mapping[str, int]


@dataclass(frozen=True)
class Words:
    text: str
    speaker: Annotated[str, Unhashed("the same words in any mouth")] = "me"


def load(_settings: Shouting) -> Work[Words]:
    def work(attempt: Attempt[Words]) -> dict[str, Any]:
        (attempt.out / "out.txt").write_text(f"{attempt.task.text} {dict(attempt.condemned)}")
        return {"num_rows": 3}

    return work


STEP = Step("shout", 1, Shouting(1, {"a": 1, "b": 2}), load, "describe")
ITEM = Item(Words("hello"), 3)


def test_identity_follows_what_changes_the_output_and_nothing_else() -> None:
    identity = STEP.identity(ITEM)
    assert len(identity) == 32
    for other in (
        replace(STEP, name="whisper"),
        replace(STEP, version=2),
        replace(STEP, settings=Shouting(1, {"a": 1, "b": 3})),
    ):
        assert other.identity(ITEM) != identity
    assert STEP.identity(replace(ITEM, task=Words("hallo"))) != identity
    assert STEP.identity(replace(ITEM, generation=1)) != identity
    for same in (
        replace(STEP, threads=7, loads_model=True, stage="judge"),
        replace(STEP, settings=Shouting(1, {"b": 2, "a": 1})),
    ):
        assert same.identity(ITEM) == identity
    assert STEP.identity(replace(ITEM, task=Words("hello", speaker="you"), num_rows=9)) == identity


def test_a_receipt_lists_what_was_published(tmp_path: Path) -> None:
    receipt = perform(STEP.work(), STEP, ITEM, run_dir=str(tmp_path))
    assert receipt.facts == {"num_rows": 3}
    path = tmp_path / receipt.folder / "out.txt"
    assert path.read_text() == "hello {}"
    assert receipt.file(str(tmp_path), "out.txt").num_bytes == path.stat().st_size
    assert find_receipt(str(tmp_path), STEP, STEP.identity(ITEM)) == receipt
    assert Receipt.from_json(receipt.to_json(), where="here") == receipt
    assert not list((tmp_path / SCRATCH).iterdir())


def test_the_digest_forgets_the_clock(tmp_path: Path) -> None:
    first = perform(STEP.work(), STEP, ITEM, run_dir=str(tmp_path / "a"))
    second = perform(STEP.work(), STEP, ITEM, run_dir=str(tmp_path / "b"))
    assert first.timings != second.timings
    assert first.digest == second.digest
    assert replace(first, facts={"num_rows": 4}).digest != first.digest


def test_a_twin_finds_the_first_ones_output(tmp_path: Path) -> None:
    first = perform(STEP.work(), STEP, ITEM, run_dir=str(tmp_path))
    late = perform(
        STEP.work(), STEP, replace(ITEM, task=Words("hello", speaker="late")), run_dir=str(tmp_path)
    )
    assert late == first
    assert (tmp_path / first.folder / "out.txt").read_text() == "hello {}"


def test_files_without_a_receipt_are_nobody_s(tmp_path: Path) -> None:
    folder = tmp_path / "steps" / "shout" / STEP.identity(ITEM)
    folder.mkdir(parents=True)
    (folder / "out.txt").write_text("half a f")
    receipt = perform(STEP.work(), STEP, ITEM, run_dir=str(tmp_path))
    assert Path(receipt.file(str(tmp_path), "out.txt").path).read_text() == "hello {}"
    assert find_receipt(str(tmp_path), STEP, STEP.identity(ITEM)) == receipt
    assert receipt.folder == f"steps/shout/{STEP.identity(ITEM)}"
    # What a death left of the same bytes is taken for ours, and lies where it would without that death.
    other = replace(STEP, version=2)
    folder = tmp_path / "steps" / "shout" / other.identity(ITEM)
    folder.mkdir(parents=True)
    (folder / "out.txt").write_text("hello {}")
    receipt = perform(STEP.work(), other, ITEM, run_dir=str(tmp_path))
    assert Path(receipt.file(str(tmp_path), "out.txt").path) == folder / "out.txt"


class _Turns:
    """Two threads that go on one at a time, from one call of `storage` to the next, in a given order."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = list(order)
        self._ready = threading.Condition()
        self._running: int | None = None
        self._left = {0, 1}
        self.num_calls = Counter[int]()

    def wait(self, who: int) -> None:
        """Called before a call of `storage`: hands over, and waits for the next turn."""
        with self._ready:
            self.num_calls[who] += 1
            self._running = None
            self._ready.notify_all()
            self._ready.wait_for(lambda: self._running is None and self._next() == who, 10)
            if self._order:
                self._order.pop(0)
            self._running = who

    def end(self, who: int) -> None:
        with self._ready:
            self._left.discard(who)
            self._running = None
            self._ready.notify_all()

    def _next(self) -> int:
        while self._order and self._order[0] not in self._left:
            self._order.pop(0)
        return self._order[0] if self._order else min(self._left)


CALLS = ("exists", "publish_file", "publish_bytes", "sha256_file", "link_or_copy", "read_bytes")


def _two_attempts(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, order: Sequence[int], texts: Sequence[dict[str, str]]
) -> tuple[list[Receipt], _Turns]:
    turns, who = _Turns(order), threading.local()

    def in_turn(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            turns.wait(who.number)
            return plain(*args, **options)

        return call

    receipts: dict[int, Receipt] = {}

    def attempt(number: int) -> None:
        def work(attempt: Attempt) -> dict[str, Any]:
            for name, text in texts[number].items():
                (attempt.out / name).write_text(text)
            return {"whose": number if texts[0] != texts[1] else 0}

        who.number = number
        try:
            receipts[number] = perform(work, STEP, ITEM, run_dir=str(run_dir))
        finally:
            turns.end(number)

    with monkeypatch.context() as patched:
        for name in CALLS:
            patched.setattr(storage, name, in_turn(getattr(storage, name)))
        threads = [threading.Thread(target=attempt, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    return [receipts[0], receipts[1]], turns


def _holds(run_dir: Path, receipt: Receipt) -> bool:
    files = [receipt.file(str(run_dir), name) for name in receipt.files]
    return all(storage.sha256_file(file.path) == (file.sha256, file.num_bytes) for file in files)


OTHERS = ({"a.txt": "first", "b.txt": "first"}, {"a.txt": "second", "b.txt": "second"})
MIXED = ({"a.txt": "same", "b.txt": "first"}, {"a.txt": "same", "b.txt": "second", "c.txt": "more"})
SAME = ({"a.txt": "same", "b.txt": "same"}, {"a.txt": "same", "b.txt": "same"})


@pytest.mark.parametrize("texts", [OTHERS, MIXED, SAME], ids=["others", "mixed", "same"])
def test_no_receipt_lies_over_a_twin_s_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: Sequence[dict[str, str]]
) -> None:
    """Two attempts at once, in every order of their calls of the first steps, and in many of the rest."""
    rng = random.Random(0)
    orders = [list(first) + rng.choices([0, 1], k=20) for first in itertools.product([0, 1], repeat=5)]
    for i, order in enumerate(orders):
        run_dir = tmp_path / f"{i}"
        receipts, turns = _two_attempts(run_dir, monkeypatch, order, texts)
        assert turns.num_calls.total() > 5
        published = find_receipt(str(run_dir), STEP, STEP.identity(ITEM))
        assert published is not None
        assert receipts == [published, published], order
        assert _holds(run_dir, published), order
        if texts is SAME:
            assert not published.aside


@pytest.mark.parametrize("num_calls", range(1, 9))
def test_an_attempt_after_one_that_died_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_calls: int
) -> None:
    class DiedError(Exception):
        pass

    def work_of(texts: dict[str, str]) -> Work:
        def work(attempt: Attempt) -> dict[str, Any]:
            for name, text in texts.items():
                (attempt.out / name).write_text(text)
            return {}

        return work

    left = num_calls

    def dying(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise DiedError
            return plain(*args, **options)

        return call

    with monkeypatch.context() as patched, contextlib.suppress(DiedError):
        for name in CALLS:
            patched.setattr(storage, name, dying(getattr(storage, name)))
        perform(work_of(MIXED[0]), STEP, ITEM, run_dir=str(tmp_path))
    receipt = perform(work_of(MIXED[1]), STEP, ITEM, run_dir=str(tmp_path))
    assert _holds(tmp_path, receipt)
    assert find_receipt(str(tmp_path), STEP, STEP.identity(ITEM)) == receipt


def test_a_probe_publishes_nothing(tmp_path: Path) -> None:
    perform(STEP.work(), STEP, ITEM, run_dir=str(tmp_path), condemned={1: "skipped"}, publish=False)
    assert not (tmp_path / "steps").exists()


def test_work_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def work(attempt: Attempt) -> dict[str, Any]:
        (attempt.out / "half.txt").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        perform(work, STEP, ITEM, run_dir=str(tmp_path))
    assert not (tmp_path / "steps").exists()
    assert not list((tmp_path / SCRATCH).iterdir())


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"step": "x"', '{"files": {"a": 3}}', "\0\0\0", "null"])
def test_a_damaged_receipt_is_named(tmp_path: Path, text: str) -> None:
    receipt = perform(STEP.work(), STEP, ITEM, run_dir=str(tmp_path))
    path = tmp_path / receipt.folder / "receipt.json"
    path.write_text(text)
    with pytest.raises(IntegrityError, match=str(path)):
        find_receipt(str(tmp_path), STEP, STEP.identity(ITEM))


def test_a_pipe_in_place_of_a_receipt_is_none_and_gives_way(tmp_path: Path) -> None:
    receipt = perform(STEP.work(), STEP, ITEM, run_dir=str(tmp_path))
    path = tmp_path / receipt.folder / "receipt.json"
    path.unlink()
    os.mkfifo(path)
    assert find_receipt(str(tmp_path), STEP, STEP.identity(ITEM)) is None
    again = perform(STEP.work(), STEP, ITEM, run_dir=str(tmp_path))
    assert again.digest == receipt.digest
    assert path.is_file()
    assert find_receipt(str(tmp_path), STEP, STEP.identity(ITEM)) == again
