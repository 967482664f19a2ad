"""A step, its items, and the receipts that prove that an item is done.

A step is a name, a version, settings and a way to load its work from them; an item is a task for the work.
Settings and tasks are frozen dataclasses, and an item's identity is the hash of their fields (`digest`): an
output found under an identity is the output, and a changed config never meets an old one.
"""

import contextlib
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from curation import storage
from curation.disk_errors import naming
from curation.errors import IntegrityError
from curation.local_reads import NotRegularError
from curation.sealed import seal, unseal
from pipelines.engine.digest import digest_of, narrowed
from pipelines.engine.row_notes import SCRATCH, RowNote

STEPS = "steps"  # the folder of a run directory that holds those of the steps
RECEIPT = "receipt.json"  # of an item, in its folder
SET_ASIDE = "receipt.damaged.json"  # in its place, where a file was found damaged: the item is done anew


class FileRef(NamedTuple):
    """A published file: where it lies and what its bytes hash to."""

    path: str
    num_bytes: int
    sha256: str

    @property
    def digest(self) -> str:
        """Hash of the bytes: where they lie is no part of it."""
        return self.sha256


Settings = TypeVar("Settings")
Task = TypeVar("Task")


@dataclass(frozen=True)
class Item(Generic[Task]):
    """One unit of work, retry and resume.

    Args:
        task: a frozen dataclass, all that the work reads: files, parts and plain values, no arrays.
        num_rows: rows of a part, which a retry may bisect; 0 for work that is whole or not at all.
        generation: which time this is that something is asked of a world that changes; None where it is not.
        before: the receipt of the generation before, where this one has yet to be made.
    """

    task: Task
    num_rows: int = 0
    generation: int | None = None
    before: "Receipt | None" = None


@dataclass(frozen=True)
class Attempt(Generic[Task]):
    """What the work of a step is called with."""

    task: Task  # with no more of its parts than what it says it reads
    before: "Receipt | None"  # of the last generation
    out: Path  # a fresh local folder; every file that the work leaves there is published
    condemned: Mapping[int, str] = field(default_factory=dict)  # rows not to touch, and the reason to record
    folder: str = ""  # where what is left in `out` will lie, relative to the run directory
    tell: Callable[[int], None] = field(default=lambda _num_rows: None)  # so many rows are done by now


# Small plain data that depends on the inputs alone, and is part of the digest.
Facts = Mapping[str, object]
Work = Callable[[Attempt[Task]], Facts]


@dataclass(frozen=True)
class Step(Generic[Settings, Task]):
    """A named, versioned piece of the pipeline.

    Args:
        name: also its folder.
        version: raised when the code's output changes.
        settings: a frozen dataclass, all that the work of every item hangs on; `NoSettings` where it is none.
        load: builds the work from them, once a worker (this is where models are loaded); must pickle.
        threads: threads of a worker, the same on every machine.
        loads_model: whether `load` is costly, so that a worker should be kept for many items.
        num_gpus: GPUs that a worker wants for itself.
        within: the folder that it lies in, relative to the run directory: that of an outcome which it is an
            inner step of (`inner.py`), or `steps`.
    """

    name: str
    version: int
    settings: Settings
    load: Callable[[Settings], Work[Task]]
    stage: str
    threads: int = 1
    loads_model: bool = False
    num_gpus: int = 0
    within: str = STEPS

    @property
    def folder(self) -> str:
        """Where the folders of its items lie, relative to the run directory."""
        return f"{self.within}/{self.name}"

    def identity(self, item: Item[Task]) -> str:
        """The 32 hex digits under which the output of `item` lies."""
        name = self.name if self.within == STEPS else self.folder
        return digest_of(name, self.version, self.settings, item.task, item.generation)

    def work(self) -> Work[Task]:
        """The work, loaded, with the threads that it is to use."""
        set_threads(self.threads)
        return self.load(self.settings)


def set_threads(threads: int) -> None:
    """Use so many threads for torch and FAISS in this process: the order of their sums hangs on it.

    Neither is loaded for that, which takes seconds: one that comes later reads the environment, once. MKL
    would take no more than there are cores, unless it is told that it may not choose.
    """
    os.environ |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "MKL_DYNAMIC": "FALSE"}
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    if faiss := sys.modules.get("faiss"):
        faiss.omp_set_num_threads(threads)


@contextlib.contextmanager
def environment_kept() -> Iterator[None]:
    """What `set_threads` tells libraries inside is told to nobody whom this process starts later."""
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DYNAMIC")}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class NoSettings:
    """Of a step whose work hangs on its task alone."""


AnyStep = Step[Any, Any]
AnyItem = Item[Any]


@dataclass(frozen=True)
class Receipt:
    """Proof that an item's output is whole: written last, after every file that it lists."""

    step: str
    identity: str
    folder: str  # relative to the run directory
    files: dict[str, tuple[int, str]]  # name → bytes, sha256
    facts: Mapping[str, Any]  # as the work gave them, or as JSON gives them back
    timings: dict[str, float] = field(default_factory=dict)
    aside: str = ""  # below `folder`: where the files lie, if another attempt's lay in their way

    @property
    def files_folder(self) -> str:
        """Where the files lie, relative to the run directory."""
        return storage.join(self.folder, self.aside) if self.aside else self.folder

    @property
    def digest(self) -> str:
        """Hash of what was made; when and how fast is no part of it."""
        return digest_of(sorted((name, *entry) for name, entry in self.files.items()), self.facts)

    def file(self, run_dir: str, name: str) -> FileRef:
        """One of the files, by its name."""
        return FileRef(storage.join(run_dir, self.files_folder, name), *self.files[name])

    def to_json(self) -> str:
        return seal(asdict(self))

    @staticmethod
    def from_json(text: str | bytes, *, where: str) -> "Receipt":
        """Parse a receipt.

        Raises:
            IntegrityError: when the text is no receipt.
        """
        data = unseal(text, where=where)
        try:
            data["files"] = {name: (int(size), str(sha)) for name, (size, sha) in data["files"].items()}
            return Receipt(**data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise IntegrityError(
                f"A receipt is damaged: {where}", got=error, remedy="Run the same config again", path=where
            ) from error


def item_folder(step: AnyStep, identity: str) -> str:
    """Where an item's output lies, relative to the run directory."""
    return f"{step.folder}/{identity}"


def perform(
    work: Work[Task],
    step: Step[Any, Task],
    item: Item[Task],
    *,
    run_dir: str,
    condemned: Mapping[int, str] | None = None,
    publish: bool = True,
) -> Receipt:
    """Do the work of one item and publish it, receipt last; without `publish`, only do it.

    A twin that was faster has left a receipt: then its output stays, and ours goes. Until then a twin may be
    at work too, with other bytes. So no file is ever replaced: see `_publish`.

    Raises:
        ExecutorError: when a file system refuses what the work wants of it.
    """
    identity = step.identity(item)
    folder = item_folder(step, identity)
    scratch, note = scratch_dir(run_dir), RowNote(run_dir, identity)
    started, cpu = time.monotonic(), time.process_time()
    try:
        with naming(scratch):
            task = narrowed(item.task)
            facts = work(Attempt(task, item.before, scratch, condemned or {}, folder, note.tell))
        worked, cpu_s = time.monotonic(), time.process_time() - cpu
        if not publish:
            return Receipt(step.name, identity, folder, {}, facts)
        if twin := find_receipt(run_dir, step, identity):
            return twin
        files, aside = _publish(scratch, storage.join(run_dir, folder))
        timings = {
            "work_s": worked - started,
            "cpu_s": cpu_s,  # of all cores; a machine that is shared makes the other longer
            "publish_s": time.monotonic() - worked,
            "ended": time.time(),
        }
        return _proved(Receipt(step.name, identity, folder, files, facts, timings, aside), step, run_dir)
    finally:
        note.remove()
        shutil.rmtree(scratch, ignore_errors=True)


def _proved(receipt: Receipt, step: AnyStep, run_dir: str) -> Receipt:
    """Publish a receipt; that of a twin that was faster stays, and is returned."""
    path, text = storage.join(run_dir, receipt.folder, RECEIPT), receipt.to_json().encode()
    if storage.publish_bytes(path, text):
        return receipt
    if twin := find_receipt(run_dir, step, receipt.identity):
        return twin
    storage.publish_bytes(path, text, replace=True)  # a pipe was in the way
    return receipt


def _publish(scratch: Path, folder: str) -> tuple[dict[str, tuple[int, str]], str]:
    """Publish what lies in `scratch`, each file under its name in `folder`.

    A file that lies there already, of an attempt that has died or is still at work, is taken for ours where
    it has the same bytes, as it does wherever work can be repeated. Where it has others, all of ours go into
    a folder of their own, named by what is in them: nobody else puts other bytes there.

    Returns:
        Bytes and SHA-256 of every file, and that folder's name; empty where there was no need for it.
    """
    files: dict[str, tuple[int, str]] = {}
    for path in sorted(scratch.iterdir()):
        sha256, num_bytes = storage.sha256_file(str(path))
        files[path.name] = (num_bytes, sha256)
    for name, (num_bytes, sha256) in files.items():
        target = storage.join(folder, name)
        if not storage.publish_file(scratch / name, target) and storage.sha256_file(target) != (
            sha256,
            num_bytes,
        ):
            break
    else:
        return files, ""
    aside = digest_of(sorted((name, *entry) for name, entry in files.items()))[:16]
    for name in files:
        target = storage.join(folder, aside, name)
        if (scratch / name).exists():
            storage.publish_file(scratch / name, target, replace=True)
        else:  # published above
            storage.link_or_copy(storage.join(folder, name), target)
    return files, aside


def find_receipt(run_dir: str, step: AnyStep, identity: str) -> Receipt | None:
    """The receipt of a finished item, or None; a pipe or a device in its place is none.

    Raises:
        IntegrityError: when the receipt is damaged.
    """
    path = storage.join(run_dir, item_folder(step, identity), RECEIPT)
    try:
        return Receipt.from_json(storage.read_bytes(path), where=path)
    except (FileNotFoundError, NotRegularError):
        return None


# Notes of what a process works on itself; one that outlives it tells what it may have died of.
IN_FLIGHT = "in-flight-"


def scratch_dir(run_dir: str) -> Path:
    """A fresh local folder, on the run directory's own file system where that is local."""
    if not storage.is_local(run_dir):
        with naming(tempfile.gettempdir()):
            return Path(tempfile.mkdtemp(prefix="lvd-"))
    scratch = storage.local_path(run_dir) / SCRATCH / uuid.uuid4().hex
    with naming(scratch):
        scratch.mkdir(parents=True)
    return scratch
