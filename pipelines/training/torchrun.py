"""Several processes of one training: `lvd` starts itself under torchrun, and tells how that ended.

python -m pipelines.training.torchrun …    torchrun; no traceback where a process has said what is wrong
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from curation.errors import ConfigError, ExecutorError, LvdError, StoppedError
from curation.orphans import PARENT, end_with_parent, named_parent
from curation.printed import visible

# Names the folder in which every process leaves its exit code: torchrun's own is 1, whatever happened.
EXIT_CODES = "LVD_EXIT_CODES"
# torchrun kills what has not ended after 30 s, and a checkpoint of a large model takes longer than that.
SAVE_S = 900
SPEAK_S = 5.0  # for a message


def is_rank() -> bool:
    """Whether torchrun has started this process."""
    return "RANK" in os.environ


def rank() -> int:
    """This process's number among those that torchrun has started; 0 for a lone one."""
    return int(os.environ.get("RANK", "0"))


def is_first_here() -> bool:
    """Whether this process is the first one of its machine, or a lone one."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def is_launched_by_lvd() -> bool:
    """Whether this process is one of those that `launch` waits for."""
    return EXIT_CODES in os.environ


def launch(arguments: Sequence[str], *, num_processes: int, threads: int | None) -> None:
    """Run a command of `lvd` that trains in several processes; SIGTERM and Ctrl-C are passed on to them.

    Args:
        arguments: of `lvd`, the command's name first.
        num_processes: on this machine.
        threads: of each; an even share of the cores where None.

    Raises:
        ConfigError, StoppedError, ExecutorError: as the processes ended; they have said why.
        KeyboardInterrupt: on Ctrl-C.
    """
    command = [sys.executable, "-m", "pipelines.training.torchrun", "--standalone"]
    command += [f"--nproc-per-node={num_processes}", "-m", "pipelines.cli", *arguments]
    share = threads or max(1, (os.cpu_count() or 1) // num_processes)
    with tempfile.TemporaryDirectory(prefix="lvd-exit-codes-") as folder:
        own = {EXIT_CODES: folder, PARENT: str(os.getpid()), "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SAVE_S)}
        environment = {"OMP_NUM_THREADS": str(share), **os.environ, **own}
        code, received = _wait_for(command, environment)
        codes = _read_codes(Path(folder))
    if code == 0:
        return
    if signal.SIGINT in received:
        raise KeyboardInterrupt
    if received and codes.get(0, 143) == 143:
        raise StoppedError("Stopped by SIGTERM", remedy="Run the same command again: it goes on where it was")
    if ConfigError.exit_code in codes.values():
        raise ConfigError(
            f"None of the {num_processes} processes could begin", remedy="See what they said above"
        )
    raise ExecutorError(
        f"The training failed in one of its {num_processes} processes",
        got=", ".join(f"rank {number}: exit code {codes[number]}" for number in sorted(codes)) or None,
        remedy="See what it said above; the same command goes on from the last checkpoint",
    )


def _read_codes(folder: Path) -> dict[int, int]:
    """The exit code of each process that could leave one: it was killed, or the disk was full, if not."""
    texts = {int(path.name): path.read_text() for path in folder.iterdir()}
    return {number: int(text) for number, text in texts.items() if text.isdigit()}


def _wait_for(command: Sequence[str], environment: dict[str, str]) -> tuple[int, list[int]]:
    """The exit code of a command, and the signals that were passed on to it."""
    received: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:  # torchrun is already ending its processes; a second one would hurry it
            for child in children:
                child.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        # A session of its own, so that Ctrl-C reaches it once, through us.
        with subprocess.Popen(command, env=environment, start_new_session=True) as child:
            if received:
                child.terminate()
            children.append(child)
            return child.wait(), received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def exit_code_noted() -> Iterator[None]:
    """Leave the exit code of what happens inside to whoever called `launch`, if anybody has."""
    if not is_launched_by_lvd():
        yield
        return
    code = 1
    try:
        yield
        code = 0
    except LvdError as error:
        code = error.exit_code
        raise
    except KeyboardInterrupt:
        code = 130
        raise
    finally:
        try:
            (Path(os.environ[EXIT_CODES]) / str(rank())).write_text(str(code))
        except OSError as error:  # it only tells the launcher what the error of this process was
            words = f"lvd: The exit code of rank {rank()} cannot be noted: {error}."
            print(visible(words), file=sys.stderr)


def let_first_speak() -> None:
    """Wait for rank 0's same error, a moment at most: torchrun ends the others as soon as one has failed."""
    folder = os.environ.get(EXIT_CODES)
    deadline = time.monotonic() + SPEAK_S
    while time.monotonic() < deadline and not (folder and (Path(folder) / "0").exists()):
        time.sleep(0.1)


def main() -> int:
    """Run torchrun; what killed a process that could say nothing is said here."""
    # torch: seconds, which whoever asks whether this is a rank does not wait for.
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    launcher = named_parent()
    end_with_parent(by=signal.SIGTERM, parent=launcher)
    os.environ[PARENT] = str(os.getpid())
    logging.disable(logging.CRITICAL)  # it would tell in its own words what the processes have said
    try:
        run(sys.argv[1:])
    except ChildFailedError as error:
        for number, failure in sorted(error.failures.items()):
            if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:
                name = signal.Signals(-failure.exitcode).name
                print(f"lvd: The process of rank {number} was ended by {name}.", file=sys.stderr)
        return 1
    except SignalException:
        return 1
    finally:
        if launcher is not None and os.getppid() != launcher and is_launched_by_lvd():
            shutil.rmtree(os.environ[EXIT_CODES], ignore_errors=True)  # nobody waits for them any more
    return 0


if __name__ == "__main__":
    sys.exit(main())
