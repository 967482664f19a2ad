"""Entries of every kind in a folder: none ends a run, hangs it, or costs a picture beside it."""

import ctypes
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.acceptance.outcome import Outcome
from tests.chaos import forked
from tests.chaos.bench import Workbench, last_words, unsaid
from tests.chaos.trial import Trial

TIMEOUT_S = 120.0
_READS_ALL = 0b1110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "fifo.jpg")


def named_socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path may be 108 bytes long
        listener.bind("socket.jpg")
        os.chdir(here)


def device(folder: Path) -> None:
    os.mknod(folder / "zero.jpg", 0o600 | 0o020000, os.makedev(1, 5))


def dangling_link(folder: Path) -> None:
    (folder / "dangling.jpg").symlink_to("/nonexistent/x.jpg")


def link_to_itself(folder: Path) -> None:
    (folder / "self.jpg").symlink_to("self.jpg")


def ring_of_folders(folder: Path) -> None:
    (folder / "down").mkdir()
    (folder / "down" / "up").symlink_to("..")


def link_to_a_fifo(folder: Path) -> None:
    os.mkfifo(folder.parent / "outside")
    (folder / "fifo.jpg").symlink_to(folder.parent / "outside")


def link_into_a_closed_folder(folder: Path) -> None:
    (folder.parent / "closed").mkdir(mode=0)
    (folder / "closed.jpg").symlink_to(folder.parent / "closed" / "x.jpg")


def closed_folder(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0)


def closed_file(folder: Path) -> None:
    (folder / "closed.jpg").write_bytes(b"x")
    (folder / "closed.jpg").chmod(0)


def closed_sidecar(folder: Path) -> None:
    picture = next(folder.rglob("*.jpg"))
    picture.with_suffix(".txt").unlink(missing_ok=True)
    picture.with_suffix(".txt").write_text("caption")
    picture.with_suffix(".txt").chmod(0)


def empty_file(folder: Path) -> None:
    (folder / "empty.jpg").touch()


def name_that_is_not_utf8(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/in\xe9.jpg")).write_bytes(b"x")


def name_of_255_bytes(folder: Path) -> None:
    (folder / ("n" * 251 + ".jpg")).write_bytes(b"x")


def name_with_escapes(folder: Path) -> None:
    (folder / "a\x1b[2J\nb.jpg").write_bytes(b"x")


def path_beyond_4096(folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(20):
            os.mkdir("d" * 250, dir_fd=here)
            deeper = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        os.close(os.open("x.jpg", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=here))
    finally:
        os.close(here)


def hidden_folder(folder: Path) -> None:
    hidden = folder / ".ipynb_checkpoints"
    hidden.mkdir()
    shutil.copy(next(folder.rglob("*.jpg")), hidden / "0-checkpoint.jpg")


def mac_leftovers(folder: Path) -> None:
    (folder / "._0.jpg").write_bytes(b"\0\5\x16\7" + bytes(96))
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")


def huge_sparse_file(folder: Path) -> None:
    with (folder / "huge.jpg").open("wb") as stream:
        stream.truncate(1 << 40)


KINDS: tuple[Callable[[Path], None], ...] = (
    fifo, named_socket, device, dangling_link, link_to_itself, ring_of_folders, link_to_a_fifo,
    link_into_a_closed_folder, closed_folder, closed_file, closed_sidecar, empty_file, name_that_is_not_utf8,
    name_of_255_bytes, name_with_escapes, path_beyond_4096, hidden_folder, mac_leftovers, huge_sparse_file,
)  # fmt: skip


def entries(bench: Workbench) -> Iterator[Trial]:
    """One entry of each kind among the pictures of a source, there from the beginning."""
    plain = _ids(bench.reference())
    for make in KINDS:
        folder = bench.fresh("entries")
        log, sites = folder / "log", folder / "sites"
        shutil.copytree(bench.root / "web" / "uncurated" / "sites", sites)
        make(sites)
        arguments = bench.command(folder / "run", f"pools.web.sources.0.path={sites}")
        code = forked.start(arguments, log=log, before=as_a_user).wait(TIMEOUT_S)
        said = unsaid(log) or ("" if code in (0, 3) else f"ended with {code}: {last_words(log)}")
        if not said and _ids(folder / "run") != plain:
            said = "other images are in the dataset"
        yield Trial("odd entries", make.__name__, not said, None, said)


def swapped(bench: Workbench) -> Iterator[Trial]:
    """A file is replaced between listing and reading, by an entry of another kind."""
    plain = _ids(bench.reference())

    def by_nothing(path: Path) -> None:
        path.unlink()

    def by_a_fifo(path: Path) -> None:
        path.unlink()
        os.mkfifo(path)

    def by_a_folder(path: Path) -> None:
        path.unlink()
        path.mkdir()

    def by_fewer_bytes(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-40])

    def by_more_bytes(path: Path) -> None:
        path.write_bytes(path.read_bytes() + bytes(40))

    for until in ("ingest", "select"):
        for swap in (by_nothing, by_a_fifo, by_a_folder, by_fewer_bytes, by_more_bytes):
            folder = bench.fresh("swapped")
            log, sites = folder / "log", folder / "sites"
            shutil.copytree(bench.root / "web" / "uncurated" / "sites", sites)
            arguments = bench.command(folder / "run", f"pools.web.sources.0.path={sites}")
            forked.run([*arguments, f"--until={until}"], log=log)
            victim = _kept_of(bench.reference(), "web", sites)
            swap(victim)
            code = forked.run(arguments, log=log, timeout_s=TIMEOUT_S)
            # What was appended belongs to nothing that was listed.
            fine = (0, 3) if swap is by_more_bytes else (3,)
            said = unsaid(log) or ("" if code in fine else f"ended with {code}: {last_words(log)}")
            if not said:
                gone = plain - _ids(folder / "run")
                said = "" if len(gone) <= 1 else f"{len(gone)} images are gone"
            yield Trial("swapped sources", f"{swap.__name__} after {until}", not said, None, said)


def _ids(run_dir: Path) -> set[str]:
    return set(Outcome(run_dir).selection["image_id"].to_pylist())


def _kept_of(run_dir: Path, pool: str, sites: Path) -> Path:
    """A plain file of the pool that is in the dataset."""
    rows = Outcome(run_dir).selection.to_pylist()
    return next(path for row in rows if row["pool"] == pool and (path := sites / row["key"]).is_file())


def as_a_user() -> None:
    """Give up what root may do to files that nobody may read."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    data = (ctypes.c_uint32 * 6)()
    if libc.capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    for word in range(3):  # effective, permitted, inheritable
        data[word] &= ~_READS_ALL
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")
