"""Disks that fill up: bytes or inodes of the run directory."""

from collections.abc import Iterator

from tests.chaos import forked
from tests.chaos.bench import Workbench, last_words, unsaid
from tests.chaos.trial import Trial
from tests.faults.disks import enlarge, small_disk

ROOM = 1 << 30  # more than a run needs
WORDS = ("The disk is full: ", "has no inode left: ")


def disks(bench: Workbench) -> Iterator[Trial]:
    """The run directory's disk is full at some point of a run, and has room again before the next."""
    files = {path.stat().st_ino: path.stat().st_size for path in bench.reference().rglob("*")}
    for share in (0.02, 0.1, 0.2, 0.3, 0.4, 0.6):
        num_bytes, num_inodes = int(sum(files.values()) * share) + 4096, int(len(files) * share) + 4
        yield _filled(bench, f"{share:.0%} of the bytes", num_bytes, num_inodes=0)
        yield _filled(bench, f"{share:.0%} of the inodes", ROOM, num_inodes=num_inodes)


def _filled(bench: Workbench, what: str, num_bytes: int, *, num_inodes: int) -> Trial:
    folder = bench.fresh("disk")
    run_dir, log = folder / "disk" / "run", folder / "log"
    with small_disk(folder / "disk", num_bytes=num_bytes, num_inodes=num_inodes):
        code = forked.run(bench.command(run_dir), log=log)
        text = log.read_text(errors="replace")
        said = unsaid(log)
        if code != 1:
            said = said or f"ended with {code}: {last_words(log)}"
        if not any(f"{words}{folder / 'disk'}" in text for words in WORDS):
            said = said or f"neither path nor reason in: {last_words(log)}"
        enlarge(folder / "disk", num_bytes=ROOM)
        wrong = bench.resumed(run_dir, log=log)
    return Trial("full disks", f"a disk of {what}", not said, not wrong, said or wrong)
