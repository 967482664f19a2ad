"""Files of a run that are no longer what was written: below `steps/`, in the dataset, beside them."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.acceptance.outcome import Outcome
from tests.chaos import forked
from tests.chaos.bench import Workbench, last_words, unsaid
from tests.chaos.trial import Trial

# Another config by which everything after judging is done anew, from files of the steps before it; and one
# by which shards alone are.
FROM_JUDGE, FROM_SHARD = "judge.min_side_px=33", "shard.max_samples=31"
EARLY = ("ingest_units", "ingest", "stage", "describe", "score")


def flip(path: Path, rng: np.random.Generator) -> None:
    """Turn one bit."""
    data = bytearray(path.read_bytes())
    at = int(rng.integers(len(data)))
    data[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def truncate(path: Path, rng: np.random.Generator) -> None:
    """Cut the file at a random place."""
    path.write_bytes(path.read_bytes()[: int(rng.integers(1, path.stat().st_size))])


def empty(path: Path, _rng: np.random.Generator) -> None:
    """Leave no byte."""
    path.write_bytes(b"")


def remove(path: Path, _rng: np.random.Generator) -> None:
    """Leave no file."""
    path.unlink()


DAMAGES: tuple[Callable[[Path, np.random.Generator], None], ...] = (flip, truncate, empty, remove)


def damage_of_steps(bench: Workbench) -> Iterator[Trial]:
    """A file of every kind below `steps/` is damaged; then what is built on it is built again."""
    reference = bench.reference()
    rng = bench.rng("damage")
    kinds: dict[str, list[Path]] = {}
    for path in sorted((reference / "steps").rglob("*")):
        if path.is_file():
            kinds.setdefault(_kind(path.relative_to(reference)), []).append(path)
    for kind, files in kinds.items():
        others = DAMAGES[1:]
        for harm in DAMAGES if bench.every else (flip, others[int(rng.integers(len(others)))]):
            for path in files if bench.every else [files[int(rng.integers(len(files)))]]:
                if path.stat().st_size:
                    yield _damaged_step(bench, kind, path.relative_to(reference), harm, rng)


def _kind(path: Path) -> str:
    """A path without what names one file of many."""
    return re.sub(r"[0-9a-f]{32}", "ID", re.sub(r"\d{6}", "N", str(path)))


def _damaged_step(
    bench: Workbench,
    kind: str,
    path: Path,
    harm: Callable[[Path, np.random.Generator], None],
    rng: np.random.Generator,
) -> Trial:
    folder = bench.fresh("damage")
    run_dir, log = bench.copy_of_reference(folder), folder / "log"
    harm(run_dir / path, rng)
    override = FROM_JUDGE if path.parts[1] in EARLY else FROM_SHARD
    said, wrong = _outcome(bench, run_dir, override, log)
    return Trial("damaged steps", f"{harm.__name__} {kind}", not said, not wrong, said or wrong)


def _outcome(bench: Workbench, run_dir: Path, override: str, log: Path) -> tuple[str, str]:
    """Run by another config, then by the first; a refusal names a file, and holds until that is gone."""
    said = ""
    for settings in ((override,), ()):
        code = forked.run(bench.command(run_dir, *settings), log=log)
        said = said or unsaid(log)
        if code == 0:
            wrong = bench.differences(run_dir, *settings)
            if wrong:
                return said, f"exit 0 over {wrong}"
            continue
        text = log.read_text(errors="replace")
        named = [Path(found) for found in re.findall(rf"{re.escape(str(run_dir))}/[\w./-]*\w", text)]
        if not named:
            return f"ended with {code}, and no file is named: {last_words(log)}", ""
        again = forked.run(bench.command(run_dir, *settings), log=log)
        if again == 0 and bench.differences(run_dir, *settings):
            return said, "refused once, and then exit 0 over other bytes"
        # As it advises: what is damaged is removed, with what it stands in, and made anew.
        for name in named[-1:]:
            spoiled = name if name.is_dir() else name.parent
            shutil.rmtree(spoiled, ignore_errors=True)
        wrong = bench.resumed(run_dir, *settings, log=log)
        if wrong:
            return said, wrong
    return said, ""


def damage_of_datasets(bench: Workbench) -> Iterator[Trial]:
    """A file of a finished dataset is damaged: `verify` names it, answers refuse it, a run makes it right."""
    reference = bench.reference()
    rng = bench.rng("datasets")
    files = [path for path in sorted(reference.rglob("*")) if path.is_file()]
    files = [path for path in files if path.relative_to(reference).parts[0] not in ("steps", "logs", "lock")]
    kinds: dict[str, list[Path]] = {}
    for path in files:
        kinds.setdefault(_kind(path.relative_to(reference)), []).append(path)
    for kind, paths in kinds.items():
        for harm in DAMAGES:
            for path in paths if bench.every else [paths[int(rng.integers(len(paths)))]]:
                yield _damaged_dataset(bench, kind, path.relative_to(reference), harm, rng)


def _damaged_dataset(
    bench: Workbench,
    kind: str,
    path: Path,
    harm: Callable[[Path, np.random.Generator], None],
    rng: np.random.Generator,
) -> Trial:
    folder = bench.fresh("dataset")
    run_dir, log = bench.copy_of_reference(folder), folder / "log"
    harm(run_dir / path, rng)
    said = ""
    if path.name != "run.yaml":  # not of the dataset: what the next run begins with
        code = forked.run(["verify", str(run_dir)], log=log)
        said = unsaid(log) or ("" if code in (1, 2) else f"verify ends with {code} over it")
    row = Outcome(bench.reference()).rows[0]
    forked.run(["explain", str(run_dir), f"{row['pool']}/{row['key']}", "--json"], log=log)
    said = said or unsaid(log)
    wrong = bench.resumed(run_dir, log=log)
    if not wrong:
        code = forked.run(["verify", str(run_dir)], log=log)
        wrong = "" if code == 0 else f"after a run, verify says: {last_words(log)}"
    return Trial("damaged datasets", f"{harm.__name__} {kind}", not said, not wrong, said or wrong)
