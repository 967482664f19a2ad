"""An object store in trouble: a source that lies behind S3's protocol, and a proxy that spoils answers."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.acceptance.outcome import Outcome
from tests.chaos import forked
from tests.chaos.bench import Workbench, last_words, unsaid
from tests.chaos.trial import Trial
from tests.s3_server import SERVER, s3_environment, serving

# However the store fails, a run has ended by then.
TIMEOUT_S = 400.0


def store(bench: Workbench) -> Iterator[Trial]:
    """A store fails for one request, for a while, or for good."""
    with serving(SERVER) as moto:
        _upload(bench.root / "web" / "uncurated" / "tars", moto, bench.root)
        plain = _run(bench, moto, ("none", 0, 0))
        assert plain[0] == 0, plain[1]
        wanted = Outcome(bench.root / "trials" / "store" / "run").digests()
        rng = bench.rng("store")
        faults: list[tuple[str, int, int]] = []
        for kind in ("500", "503", "reset", "cut", "stall"):
            faults += [(kind, int(number), 1) for number in rng.integers(0, 16, 2)]
            faults.append((kind, int(rng.integers(0, 8)), 4))
        faults += [("500", 0, 1 << 30), ("500", 6, 1 << 30), ("reset", 6, 1 << 30), ("hang", 5, 1)]
        for fault in faults:
            yield _trial(bench, moto, fault, wanted)


def _trial(bench: Workbench, moto: int, fault: tuple[str, int, int], wanted: dict[str, str]) -> Trial:
    code, said = _run(bench, moto, fault)
    run_dir = bench.root / "trials" / "store" / "run"
    if not said and code not in (0, 1, 3):
        said = f"ended with {code}: {last_words(run_dir.with_name('log'))}"
    if not said and code == 0 and Outcome(run_dir).digests() != wanted:
        said = "exit 0 over other bytes"
    again, _ = _run(bench, moto, ("none", 0, 0), "--refresh", fresh=False)
    wrong = "" if again == 0 else f"run again it ends with {again}: {last_words(run_dir.with_name('log'))}"
    if not wrong and Outcome(run_dir).digests() != wanted:
        wrong = "other bytes"
    kind, first, num = fault
    name = f"{kind} from request {first} on" if num > 9 else f"{kind} at {num} requests from {first} on"
    return Trial("faulty store", name, not said, not wrong, said or wrong)


def _run(
    bench: Workbench, moto: int, fault: tuple[str, int, int], *options: str, fresh: bool = True
) -> tuple[int, str]:
    """Run over the store behind a proxy; the exit code, and what should not have been said."""
    folder = bench.fresh("store") if fresh else bench.root / "trials" / "store"
    proxy = [sys.executable, "-m", "tests.faults.faulty_proxy", str(moto), *map(str, fault)]
    with serving(proxy) as port:
        lvd = forked.start(
            [*bench.command(folder / "run", "pools.web.sources.1.path=s3://pool/tars"), *options],
            log=folder / "log",
            environment=s3_environment(f"http://127.0.0.1:{port}", folder),
        )
        code = lvd.wait(TIMEOUT_S)
    return code, unsaid(folder / "log")


def _upload(folder: Path, port: int, root: Path) -> None:
    """Put the tars into the store, in a process of its own: it starts threads."""
    code = (
        "import s3fs, sys; fs = s3fs.S3FileSystem(); fs.mkdir('pool')\n"
        "fs.put(sys.argv[1], 'pool/tars', recursive=True)\n"
    )
    environment = os.environ | s3_environment(f"http://127.0.0.1:{port}", root)
    subprocess.run([sys.executable, "-c", code, f"{folder}/"], env=environment, check=True)
