"""System calls of a run: which it makes on our files, and what happens where one of them fails or kills."""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import forked
from tests.chaos.bench import Workbench, last_words, sample, unsaid
from tests.chaos.trial import Trial
from tests.faults.processes import left_behind

COMMITS = ("fsync", "rename", "link", "unlink", "mkdir")
_LINE = re.compile(r"^(?P<pid>\d+) +(?P<call>\w+)\((?P<rest>.*)$")
GONE_S = 30.0


@dataclass(frozen=True)
class Call:
    """A system call of the main thread on a file of ours: which of its kind it is, from 1 on."""

    name: str
    number: int
    words: str


def calls_of(
    bench: Workbench, names: Sequence[str], *, arguments: Callable[[Path], list[str]] | None = None
) -> list[Call]:
    """The calls on files of a run and its sources that one makes to which nothing happens, in order."""
    folder = bench.fresh("calls")
    out = folder / "calls.txt"
    lvd = forked.start(
        (arguments or bench.command)(folder / "run"),
        log=folder / "log",
        trace=["-y", "-e", f"trace={','.join(names)}", "-e", "signal=none", "-o", str(out)],
    )
    assert lvd.wait() == 0, lvd.text()
    counts: Counter[str] = Counter()
    found = []
    for line in out.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if match is None or int(match["pid"]) != lvd.pid:
            continue
        counts[match["call"]] += 1
        if str(bench.root) in match["rest"]:
            found.append(Call(match["call"], counts[match["call"]], match["rest"]))
    shutil.rmtree(folder)
    return found


def kills(bench: Workbench) -> Iterator[Trial]:
    """SIGKILL as a run is about to sync, rename, link or remove a file, or to make a folder."""
    calls = calls_of(bench, COMMITS)
    rng = bench.rng("kills")
    for name in COMMITS:
        numbers = [call.number for call in calls if call.name == name]
        for number in numbers if bench.every else sample(numbers, 6, rng):
            folder = bench.fresh("kill")
            trace = ["-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}"]
            lvd = forked.start(bench.command(folder / "run"), log=folder / "log", trace=trace)
            code = lvd.wait()
            left = left_behind(lvd.mark, timeout_s=GONE_S)
            wrong = bench.resumed(folder / "run", log=folder / "log")
            survived = code in (-9, 0) and not left
            said = wrong or ("" if survived else f"ended with {code}; left {left}: {last_words(lvd.log)}")
            yield Trial("kills", f"SIGKILL at {name} {number}", survived, not wrong, said)


# What a file system, a disk or a quota answers, by call.
ERRORS = {
    "openat": ("EIO", "EMFILE", "ENOSPC", "EACCES"),
    "read": ("EIO",),
    "pread64": ("EIO",),
    "write": ("ENOSPC", "EIO"),
    "fsync": ("EIO", "ENOSPC"),
    "rename": ("EIO", "ENOSPC"),
    "link": ("EIO", "EMLINK", "EPERM"),
    "unlink": ("EIO", "EROFS"),
    "mkdir": ("ENOSPC", "EDQUOT"),
}
FINE_CODES = (0, 1, 2, 3)


def io_errors(bench: Workbench) -> Iterator[Trial]:
    """A system call on a file of the run, or of its sources, fails once."""
    calls = calls_of(bench, tuple(ERRORS))
    rng = bench.rng("io_errors")
    for name, errors in ERRORS.items():
        mine = {call.number: call for call in calls if call.name == name}
        for error in errors:
            numbers = list(mine)
            for number in numbers if bench.every else sample(numbers, 3, rng):
                yield _failed_once(bench, mine[number], error)


def _failed_once(bench: Workbench, call: Call, error: str) -> Trial:
    folder = bench.fresh("io_error")
    run_dir, log = folder / "run", folder / "log"
    inject = f"inject={call.name}:error={error}:when={call.number}"
    lvd = forked.start(bench.command(run_dir), log=log, trace=["-e", f"trace={call.name}", "-e", inject])
    code = lvd.wait()
    said = unsaid(log)
    if code not in FINE_CODES:
        said = said or f"ended with {code}: {last_words(log)}"
    if code == 0:
        said = said or bench.differences(run_dir)
    elif code == 1 and str(bench.root) not in log.read_text(errors="replace"):
        said = said or f"no path in: {last_words(log)}"
    # What was unread is looked at again where that is asked for, and a degraded run says so.
    wrong = _healed(bench, run_dir, log)
    fault = f"{error} at {call.name} {call.number} of {_place(call.words, bench.root)}"
    return Trial("io errors", fault, not said, not wrong, said or wrong)


def _healed(bench: Workbench, run_dir: Path, log: Path) -> str:
    code = forked.run([*bench.command(run_dir), "--refresh"], log=log)
    return bench.differences(run_dir) if code == 0 else f"run again it ends with {code}: {last_words(log)}"


def _place(words: str, root: Path) -> str:
    found = re.search(re.escape(str(root)) + r"/([^\">]*)", words)
    return found[1][-80:] if found else words[:80]
