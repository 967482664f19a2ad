"""What came of one fault, and of all of them."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Trial:
    """One fault: whether it was survived as promised, and whether the same bytes came out in the end.

    `survived`: an end with an exit code and words of our own, nothing left running, and no word of success
    over a wrong dataset. `same`: after the fault is gone and the command was run again, the dataset is that
    of a run that nothing happened to, and nothing else lies about; None where a fault has no such end.
    """

    family: str
    fault: str
    survived: bool
    same: bool | None
    said: str = ""  # what was seen where something is not as it should be

    @property
    def is_exception(self) -> bool:
        return not self.survived or self.same is False


def table(trials: Iterable[Trial]) -> list[str]:
    """A line for each family, and one for each exception."""
    families: dict[str, list[Trial]] = {}
    for trial in trials:
        families.setdefault(trial.family, []).append(trial)
    lines = [f"{'family':<22}{'tried':>7}{'survived':>10}{'same bytes':>12}"]
    for family, tried in [*families.items(), ("in all", [t for ts in families.values() for t in ts])]:
        of_bytes = [trial for trial in tried if trial.same is not None]
        same = f"{sum(bool(t.same) for t in of_bytes)} of {len(of_bytes)}" if of_bytes else "–"
        lines.append(f"{family:<22}{len(tried):>7}{sum(t.survived for t in tried):>10}{same:>12}")
    exceptions = [trial for tried in families.values() for trial in tried if trial.is_exception]
    return lines + [f"EXCEPTION {trial.family}: {trial.fault}: {trial.said}" for trial in exceptions]
