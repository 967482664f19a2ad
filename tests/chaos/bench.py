"""What faults are injected into: a small web, a config over it, and what an undisturbed run makes of it."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from pipelines.demo.web import demo_config, draw_web
from pipelines.engine.row_notes import SCRATCH
from tests.acceptance.outcome import Outcome
from tests.chaos import forked
from tests.chaos.trial import Trial

# Lines that a run in trouble may not end with.
_UNSAID = ("Traceback (most recent call last)", "Fatal Python error", "terminate called")


@dataclass
class Workbench:
    """A folder for it all, the seed of what is drawn, and whether every moment is tried."""

    root: Path
    seed: int
    every: bool
    trials: list[Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        draw_web(self.root / "web", seed=1, num_images=60)
        data = demo_config(self.root / "web", self.root / "unused")
        data |= {"ingest": {"part_rows": 40}, "executor": {"kind": "local", "threads": 1}}
        data["shard"] = {"max_samples": 30}
        self.config = self.root / "config.yaml"
        self.config.write_text(yaml.safe_dump(data, sort_keys=False))
        self.reference = cache(self._reference)

    def rng(self, family: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *family.encode()])

    def command(self, run_dir: Path, *overrides: str) -> list[str]:
        """The command line of a run."""
        settings = [f"--set={override}" for override in (f"run_dir={run_dir}", *overrides)]
        return ["run", str(self.config), *settings]

    def _reference(self, *overrides: str) -> Path:
        """The run directory of a run that nothing happens to."""
        run_dir = self.root / ("reference" + "".join(f"-{value}" for value in overrides).replace("/", "_"))
        log = run_dir.with_suffix(".log")
        code = forked.run(self.command(run_dir, *overrides), log=log)
        assert code == 0, log.read_text()
        return run_dir

    def fresh(self, name: str) -> Path:
        """A folder for one trial, empty."""
        folder = self.root / "trials" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def copy_of_reference(self, folder: Path, *overrides: str) -> Path:
        """A finished run that a trial may spoil; files are copied, not linked."""
        run_dir = folder / "run"
        shutil.copytree(self.reference(*overrides), run_dir)
        return run_dir

    def resumed(self, run_dir: Path, *overrides: str, log: Path, tries: int = 1) -> str:
        """Run the command again; what is wrong with what comes out, or nothing."""
        code = -1
        for _ in range(tries):
            code = forked.run(self.command(run_dir, *overrides), log=log)
            if code == 0:
                break
        if code != 0:
            return f"run again it ends with {code}: {last_words(log)}"
        return self.differences(run_dir, *overrides)

    def differences(self, run_dir: Path, *overrides: str) -> str:
        """In what a finished run differs from an undisturbed one: bytes, rows, what lies about."""
        wanted, found = (Outcome(folder).digests() for folder in (self.reference(*overrides), run_dir))
        wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if wrong:
            return f"other bytes: {', '.join(wrong[:4])}"
        return ", ".join(leftovers(run_dir))


def leftovers(run_dir: Path) -> list[str]:
    """Temporaries that nobody will come back for."""
    left = [path for path in run_dir.rglob("*") if path.name.endswith(".tmp")]
    left += [path for path in (run_dir / SCRATCH).glob("*") if not path.name.startswith("in-flight-")]
    return [f"left over: {path.relative_to(run_dir)}" for path in left]


def last_words(log: Path) -> str:
    """The end of a log, on one line."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-500:]


def unsaid(log: Path, since: int = 0) -> str:
    """What of a log no user should see: a traceback, or a crash."""
    text = log.read_text(errors="replace")[since:]
    found = next((line for line in _UNSAID if line in text), None)
    return "" if found is None else f"{found}: {last_words(log)}"


def sample(numbers: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """A seeded sample, in order; all where there are no more."""
    if len(numbers) <= count:
        return list(numbers)
    return sorted(rng.choice(np.array(numbers), count, replace=False).tolist())
