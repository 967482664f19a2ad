"""What a run decided, measured against the truth of what its files are.

The *original* of a file is what one reaches by following parents; a file that the truth does not list is
its own original. Two files are copies of each other exactly when they have the same original.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
from rich.table import Table

TRUTH = pa.schema(
    [
        pa.field("pool", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("concept", pa.string()),  # null for a broken file
        pa.field("kind", pa.string(), nullable=False),  # original | exact | an edit | leak_… | broken_…
        pa.field("parent_pool", pa.string()),  # of what it is a copy of; null for no copy
        pa.field("parent_key", pa.string()),
    ]
)
Truth: TypeAlias = pa.Table

# The reasons that tell the truth about each kind of broken file.
BROKEN_REASONS: Mapping[str, frozenset[str]] = {
    "broken_truncated": frozenset({"truncated", "corrupt"}),
    "broken_empty": frozenset({"empty"}),
    "broken_html": frozenset({"not_an_image"}),
    "broken_tiny": frozenset({"too_small"}),
    "broken_aspect": frozenset({"aspect"}),
    "broken_bomb": frozenset({"too_many_pixels"}),
}
COPY_REASONS = frozenset({"exact_copy", "near_copy", "equal_id"})
BEFORE_DEDUP = frozenset({"describe", "judge"})

Name = tuple[str, str]  # pool, key
Row = dict[str, Any]


@dataclass(frozen=True)
class Share:
    """So many of so many."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        """The share; not a number where there was nothing to count."""
        return self.hits / self.of if self.of else math.nan

    def below(self, bar: float) -> bool:
        """Whether it misses the bar; nothing counted misses every bar."""
        return not self.value >= bar


@dataclass(frozen=True)
class Scores:
    """All numbers of one run, as the functions below define them."""

    copies: dict[str, Share]  # recall of dedup by kind
    drops: dict[str, Share]  # precision of dedup by kind of the dropped file
    leaks: dict[str, Share]  # caught, by kind
    leaks_named: Share
    leak_drops: Share
    broken: dict[str, Share]
    retrieved: Share  # precision of retrieval
    retrievable: Share  # recall of retrieval
    num_trusted_concepts: int
    balance_before: float  # effective number of trusted concepts, in the uncurated pool
    balance_after: float  # the same, among what was kept of it


def score(truth: Truth, lineage: pa.Table) -> Scores:
    """Measure a finished run.

    Args:
        truth: schema `TRUTH`, one row per file of the web.
        lineage: schema `curation.schema.LINEAGE`, one row per input image.

    Raises:
        KeyError: a file of the truth is not in the lineage.
    """
    copies = {k: v for k, v in copies_found(truth, lineage).items() if not k.startswith("leak_")}
    caught, named = leaks_caught(truth, lineage)
    retrieved, retrievable = _retrieval(truth, lineage)
    trusted = _trusted_concepts(truth, lineage)
    before, after = _balance(truth, lineage, trusted)
    return Scores(
        copies=copies,
        drops=drops_right(truth, lineage),
        leaks=caught,
        leaks_named=named,
        leak_drops=_leak_drops(truth, lineage),
        broken=_broken(truth, lineage),
        retrieved=retrieved,
        retrievable=retrievable,
        num_trusted_concepts=len(trusted),
        balance_before=before,
        balance_after=after,
    )


def failures(scores: Scores) -> list[str]:
    """What a demo must not get wrong, one line for each thing that it did; empty when all is well."""
    found = []
    for what, share, bar in (
        ("exact copies found", scores.copies.get("exact", Share(0, 0)), 1.0),
        ("re-encoded copies found", scores.copies.get("reencode", Share(0, 0)), 0.98),
        ("leaked evaluation images caught", total(scores.leaks), 0.95),
    ):
        if share.below(bar):
            found.append(f"{what}: {share.hits} of {share.of}, and at least {bar:.0%} are expected")
    return found


def copies_found(truth: Truth, lineage: pa.Table) -> dict[str, Share]:
    """Recall of dedup: by kind, the share of planted copies that were joined with their parents.

    A copy is found when it and its parent are in one component, or when one of the two was dropped as a copy
    of a file with their original. Copies of holdout images are leaks and are not counted here; nor is a pair
    of which one image was rejected before dedup saw it.
    """
    rows, originals = _by_name(lineage), _originals(truth)
    counts: dict[str, list[bool]] = {}
    for planted in truth.to_pylist():
        name, parent = _name(planted), _parent(planted)
        if parent is None or rows[parent]["reason"] == "holdout":
            continue
        pair = (rows[name], rows[parent])
        if any(row["stage"] in BEFORE_DEDUP for row in pair):
            continue
        joined = pair[0]["component"] is not None and pair[0]["component"] == pair[1]["component"]
        dropped = any(_is_right_drop(row, originals) for row in pair)
        counts.setdefault(planted["kind"], []).append(joined or dropped)
    return _shares(counts)


def drops_right(truth: Truth, lineage: pa.Table) -> dict[str, Share]:
    """Precision of dedup: of the images dropped as copies, the share whose survivor has their original.

    By kind of the dropped image; an `original` is dropped rightly when a copy of it survives in its place.
    """
    kinds = {_name(row): row["kind"] for row in truth.to_pylist()}
    originals = _originals(truth)
    counts: dict[str, list[bool]] = {}
    for row in lineage.to_pylist():
        if row["reason"] in COPY_REASONS:
            kind = kinds.get(_name(row), "original")
            counts.setdefault(kind, []).append(_is_right_drop(row, originals))
    return _shares(counts)


def leaks_caught(truth: Truth, lineage: pa.Table) -> tuple[dict[str, Share], Share]:
    """Recall of decontamination over the planted copies of holdout images.

    Returns:
        By kind, the share of leaks that were dropped as leaks, or as copies of something that was; and of
        all leaks, the share for which the lineage names the very holdout image that leaked.
    """
    rows = _by_name(lineage)
    caught: dict[str, list[bool]] = {}
    named = []
    for planted in truth.to_pylist():
        parent = _parent(planted)
        if parent is None or rows[parent]["reason"] != "holdout":
            continue
        blamed = _leak_of(rows[_name(planted)], rows)
        caught.setdefault(planted["kind"], []).append(blamed is not None)
        named.append(blamed == parent)
    return _shares(caught), Share(sum(named), len(named))


def scores_table(scores: Scores) -> Table:
    """The numbers as a table for a terminal."""
    table = Table(title="Measured against the truth")
    for column in ("what", "kind", "share", "count"):
        table.add_column(column, justify="right" if column in ("share", "count") else "left")
    kinds = sorted(scores.copies)
    sections: list[tuple[str, dict[str, Share]]] = [
        (
            "copies found (recall)",
            {kind: scores.copies[kind] for kind in kinds} | {"all": total(scores.copies)},
        ),
        ("copies dropped rightly (precision)", scores.drops | {"all": total(scores.drops)}),
        ("leaks caught", scores.leaks | {"all": total(scores.leaks)}),
        ("leaks with the right image named", {"": scores.leaks_named}),
        ("dropped as leaks rightly", {"": scores.leak_drops}),
        ("broken files, right reason", scores.broken),
        ("retrieved, of a trusted concept (precision)", {"": scores.retrieved}),
        ("of a trusted concept, retrieved (recall)", {"": scores.retrievable}),
    ]
    for what, shares in sections:
        for index, (kind, share) in enumerate(shares.items()):
            value = f"{share.value:.1%}" if share.of else "–"
            table.add_row(what if index == 0 else "", kind, value, f"{share.hits} of {share.of}")
        table.add_section()
    balance = f"{scores.balance_before:.1f} → {scores.balance_after:.1f}"
    table.add_row("balance: effective number of concepts", "", balance, f"of {scores.num_trusted_concepts}")
    return table


def _name(row: Row) -> Name:
    return row["pool"], row["key"]


def _parent(row: Row) -> Name | None:
    return None if row["parent_key"] is None else (row["parent_pool"], row["parent_key"])


def _by_name(lineage: pa.Table) -> dict[Name, Row]:
    return {_name(row): row for row in lineage.to_pylist()}


def _originals(truth: Truth) -> dict[Name, Name]:
    """What every planted copy is a copy of in the end."""
    parents = {_name(row): parent for row in truth.to_pylist() if (parent := _parent(row)) is not None}
    originals = {}
    for name, parent in parents.items():
        oldest = parent
        while oldest in parents:
            oldest = parents[oldest]
        originals[name] = oldest
    return originals


def _is_right_drop(row: Row, originals: dict[Name, Name]) -> bool:
    """Whether a row was dropped as a copy, in favour of a file with the same original."""
    if row["reason"] not in COPY_REASONS or row["by_key"] is None:
        return False
    name, by = _name(row), (row["by_pool"], row["by_key"])
    return originals.get(name, name) == originals.get(by, by)


def _leak_of(row: Row, rows: dict[Name, Row]) -> Name | None:
    """The holdout image for which a row was dropped, itself or through the copies it gave way to."""
    seen: set[Name] = set()
    while row["reason"] in COPY_REASONS and _name(row) not in seen:
        seen.add(_name(row))
        row = rows[(row["by_pool"], row["by_key"])]
    return (row["by_pool"], row["by_key"]) if row["reason"] == "leaks_holdout" else None


def _leak_drops(truth: Truth, lineage: pa.Table) -> Share:
    """Precision of decontamination: of the drops as leaks, the share whose original is in a holdout."""
    holdout = {_name(row) for row in lineage.to_pylist() if row["reason"] == "holdout"}
    originals = _originals(truth)
    dropped = [_name(row) for row in lineage.to_pylist() if row["reason"] == "leaks_holdout"]
    return Share(sum(originals.get(name) in holdout for name in dropped), len(dropped))


def _broken(truth: Truth, lineage: pa.Table) -> dict[str, Share]:
    """By kind of broken file, the share dropped for a reason that says what is wrong with it."""
    rows = _by_name(lineage)
    counts: dict[str, list[bool]] = {}
    for planted in truth.to_pylist():
        if (reasons := BROKEN_REASONS.get(planted["kind"])) is not None:
            counts.setdefault(planted["kind"], []).append(rows[_name(planted)]["reason"] in reasons)
    return _shares(counts)


def _trusted_concepts(truth: Truth, lineage: pa.Table) -> set[str]:
    """The concepts of the curated pools' own images."""
    rows = _by_name(lineage)
    return {
        row["concept"]
        for row in truth.to_pylist()
        if row["concept"] and rows[_name(row)]["reason"] == "curated" and row["kind"] == "original"
    }


def _retrieval(truth: Truth, lineage: pa.Table) -> tuple[Share, Share]:
    """Precision and recall of retrieval among the uncurated images that came as far as that."""
    trusted = _trusted_concepts(truth, lineage)
    concepts = {_name(row): row["concept"] for row in truth.to_pylist()}
    wanted, taken, both = 0, 0, 0
    for row in _uncurated(lineage):
        is_retrieved = row["reason"] == "over_cap" or row["decision"] == "kept"
        is_trusted = concepts.get(_name(row)) in trusted
        if is_retrieved or row["reason"] == "not_retrieved":
            wanted += is_trusted
            taken += is_retrieved
            both += is_trusted and is_retrieved
    return Share(both, taken), Share(both, wanted)


def _balance(truth: Truth, lineage: pa.Table, trusted: set[str]) -> tuple[float, float]:
    """Effective number of trusted concepts in the uncurated pool as it came, and in what was kept of it."""
    concepts = {_name(row): row["concept"] for row in truth.to_pylist()}
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for row in _uncurated(lineage):
        concept = concepts.get(_name(row))
        if concept in trusted:
            before[concept] += 1
            after[concept] += row["decision"] == "kept"
    return effective_number(before), effective_number(after)


def effective_number(counts: Mapping[str, int]) -> float:
    """exp of the entropy of the shares: n for n equal counts, 1 for a single one, 0 for none."""
    total = sum(counts.values())
    shares = [count / total for count in counts.values() if count]
    return math.exp(-sum(share * math.log(share) for share in shares)) if shares else 0.0


def _uncurated(lineage: pa.Table) -> Iterator[Row]:
    """Rows of the pools that are searched: those with neither a curated nor a holdout image."""
    rows = lineage.to_pylist()
    known = {row["pool"] for row in rows if row["reason"] in ("curated", "holdout")}
    return (row for row in rows if row["pool"] not in known)


def _shares(counts: dict[str, list[bool]]) -> dict[str, Share]:
    return {kind: Share(sum(found), len(found)) for kind, found in counts.items()}


def total(shares: dict[str, Share]) -> Share:
    """All kinds together."""
    return Share(sum(share.hits for share in shares.values()), sum(share.of for share in shares.values()))
