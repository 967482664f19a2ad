"""Disks that fill up: bytes or inodes of the run directory, and of the folder for temporaries."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos import forked
from tests.chaos.bench import Workbench, last_words, unsaid
from tests.chaos.trial import Trial


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[None]:
    """A small file system of its own at `folder`; needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def disks(bench: Workbench) -> Iterator[Trial]:
    """The run directory's disk is full at some point of a run, and has room again before the next."""
    files = [path for path in bench.reference().rglob("*") if path.is_file()]
    used = len({path.stat().st_ino for path in files}), sum(path.stat().st_size for path in files)
    for share in (0.02, 0.2, 0.4, 0.6, 0.8):
        yield _filled(bench, f"{share:.0%} of the bytes", f"size={int(used[1] * share) // 1024 + 4}k")
        yield _filled(bench, f"{share:.0%} of the inodes", f"size=1g,nr_inodes={int(used[0] * share) + 4}")


def _filled(bench: Workbench, what: str, options: str) -> Trial:
    folder = bench.fresh("disk")
    run_dir, log = folder / "disk" / "run", folder / "log"
    with tmpfs(folder / "disk", options):
        code = forked.run(bench.command(run_dir), log=log)
        text = log.read_text(errors="replace")
        said = unsaid(log)
        if code != 1:
            said = said or f"ended with {code}: {last_words(log)}"
        if str(folder / "disk") not in text or "No space left" not in text:
            said = said or f"neither path nor reason in: {last_words(log)}"
        subprocess.run(["mount", "-o", "remount,size=1g,nr_inodes=100000", str(folder / "disk")], check=True)
        wrong = bench.resumed(run_dir, log=log)
    return Trial("full disks", f"a disk of {what}", not said, not wrong, said or wrong)
