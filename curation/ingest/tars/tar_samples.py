"""Which members of a tar form a sample.

Adjacent members with one name up to the first dot do, as in webdataset, and members of one sample that lie
apart are joined where each has a name of its own. Where names repeat, a sidecar is the image's that it lies
beside, if the whole is made of such samples. Otherwise (`a.png a.png a.txt a.txt`: sorted by kind) nobody can
say whose it is, and it goes to none: a wrong caption is worse than none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from curation.ingest.sidecars import SidecarRule, StoredFile, sample_key, stem, taker_stem

_Placed = tuple[int, StoredFile]  # the number of a member, and it


@dataclass(slots=True)
class Samples:
    """The samples in the order of their first members, and what is odd about them.

    Attributes:
        files: of each sample, in the order of the tar.
        num_split: samples whose members are not adjacent.
        left_out: sidecars that may be of several images of one name.
    """

    files: list[list[StoredFile]]
    num_split: int = 0
    left_out: list[StoredFile] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Told:
    """What a tar's other samples, whose names do not repeat, tell of it."""

    are_whole: bool
    begin_with_images: bool


def group_samples(files: Sequence[StoredFile], rule: SidecarRule) -> Samples:
    """Group a tar's members by samples."""
    by_key: dict[str, list[_Placed]] = {}
    for number, file in enumerate(files):
        by_key.setdefault(sample_key(file.name), []).append((number, file))
    repeated = {key for key, members in by_key.items() if _repeats(members)}
    groups: list[list[_Placed]] = []
    num_split = 0
    for key in (key for key in by_key if key not in repeated):
        blocks = _cut(by_key[key], at_repeats=False)
        num_split += len(blocks) > 1
        groups += _joined(blocks, rule)
    told = _Told(num_split == 0, not any(_begins_with_sidecar(group, rule) for group in groups))
    left_out: list[_Placed] = []
    for key in (key for key in by_key if key in repeated):
        for members in _by_taker(by_key[key], rule):
            kept, lost = _told_apart(members, rule, told)
            groups += kept
            left_out += lost
    groups.sort(key=lambda group: group[0][0])
    return Samples(
        [[file for _, file in group] for group in groups],
        num_split,
        [file for _, file in sorted(left_out, key=lambda member: member[0])],
    )


def _repeats(members: Sequence[_Placed]) -> bool:
    return len({file.name for _, file in members}) < len(members)


def _cut(members: Sequence[_Placed], *, at_repeats: bool) -> list[list[_Placed]]:
    """Members in runs of adjacent ones; a name that comes again in a run begins another, if asked."""
    runs: list[list[_Placed]] = []
    names: set[str] = set()
    for number, file in members:
        if not runs or number != runs[-1][-1][0] + 1 or (at_repeats and file.name in names):
            runs.append([])
            names = set()
        runs[-1].append((number, file))
        names.add(file.name)
    return runs


def _joined(runs: list[list[_Placed]], rule: SidecarRule) -> list[list[_Placed]]:
    """Runs of one sample: sidecars that lie apart are put to the one run that has images."""
    homes = [run for run in runs if _has_images(run, rule)]
    if len(homes) != 1:
        return runs
    return [homes[0] + [member for run in runs if run is not homes[0] for member in run]]


def _by_taker(members: Sequence[_Placed], rule: SidecarRule) -> list[list[_Placed]]:
    """Members of one key by the stem of the images that they belong to."""
    stems = {stem(file.name) for _, file in members if not rule.admits(file.name, file.num_bytes)}
    groups: dict[str | None, list[_Placed]] = {}
    for member in members:
        name = member[1].name
        is_sidecar = rule.admits(name, member[1].num_bytes)
        groups.setdefault(taker_stem(name, stems) if is_sidecar else stem(name), []).append(member)
    return list(groups.values())


def _told_apart(
    members: list[_Placed], rule: SidecarRule, told: _Told
) -> tuple[list[list[_Placed]], list[_Placed]]:
    """The samples of one stem, and the sidecars that nobody can tell whose they are."""
    if not _repeats(members):
        return [members], []
    runs = _cut(members, at_repeats=True)
    if not any(_has_images(run, rule) for run in runs) or _are_samples(runs, rule, told):
        return runs, []
    sidecars = [member for member in members if rule.admits(member[1].name, member[1].num_bytes)]
    lost = {number for number, _ in sidecars}
    return [[member] for member in members if member[0] not in lost], sidecars


def _are_samples(runs: list[list[_Placed]], rule: SidecarRule, told: _Told) -> bool:
    """Whether each run is plainly a sample of its own: all alike, or told apart by what lies between."""
    if not all(_has_images(run, rule) for run in runs):
        return False
    shapes = [_shape(run, rule) for run in runs]
    if len(set(shapes)) == 1:
        return True
    return told.are_whole and all(
        one == other or _is_border(before[-1], after[0], rule, told)
        for (one, other), (before, after) in zip(pairwise(shapes), pairwise(runs), strict=True)
    )


def _is_border(last: _Placed, first: _Placed, rule: SidecarRule, told: _Told) -> bool:
    """Whether one sample ends and another begins between two members: other samples, or an image's turn."""
    (last_number, last_file), (number, file) = last, first
    if last_number + 1 < number:
        return True
    is_turn = rule.admits(last_file.name, last_file.num_bytes) and not rule.admits(file.name, file.num_bytes)
    return is_turn and told.begin_with_images


def _shape(run: list[_Placed], rule: SidecarRule) -> tuple[bool, frozenset[str]]:
    """Whether a sidecar comes first, and the names of all."""
    names = frozenset(file.name for _, file in run if rule.admits(file.name, file.num_bytes))
    return _begins_with_sidecar(run, rule), names


def _begins_with_sidecar(run: list[_Placed], rule: SidecarRule) -> bool:
    return rule.admits(run[0][1].name, run[0][1].num_bytes) and _has_images(run, rule)


def _has_images(run: list[_Placed], rule: SidecarRule) -> bool:
    return not all(rule.admits(file.name, file.num_bytes) for _, file in run)
