"""Disks that are small, full or failing."""

import contextlib
import gc
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, *, num_bytes: int, num_inodes: int = 0) -> Iterator[Path]:
    """A file system of its own, mounted at `folder`; the test is skipped where that is not allowed.

    Args:
        folder: where to; it is made.
        num_bytes: its size.
        num_inodes: files and folders that it can hold; 0 for no limit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={num_bytes},nr_inodes={num_inodes}"
    command = ["mount", "-t", "tmpfs", "-o", options, "lvd-test", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs `mount`, to make a small disk")
    if done.returncode:
        pytest.skip(f"needs the right to mount a small disk: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(folder: Path, *, num_bytes: int, num_inodes: int = 0) -> None:
    """Give a small disk more room, as somebody does who frees some."""
    options = f"remount,size={num_bytes},nr_inodes={num_inodes}"
    subprocess.run(["mount", "-o", options, str(folder)], check=True)


def fill(folder: Path, *, but_bytes: int = 0) -> Path:
    """Leave so much room on a disk, in whole pages; returns the file that takes the rest."""
    file = folder / "filler"
    with file.open("wb") as out:
        while (room := shutil.disk_usage(folder).free - but_bytes) > 0:
            out.write(b"\0" * min(room, 1 << 20))
            out.flush()
    return file


@contextlib.contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Let no file of this process, and of those that it starts, grow longer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open no file that it has not open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()  # what others have left open is not to be closed meanwhile
    lowest_free = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    taken = []  # whatever another thread has closed since
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)
