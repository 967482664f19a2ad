"""What another threshold would decide: components anew from the saved edges. Nothing is run or written."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from curation.dedup.config import DedupConfig
from curation.dedup.edges import Edges
from curation.errors import ConfigError
from curation.schema import EDGE_KINDS
from pipelines.answers.finished_run import find_run
from pipelines.config.run_config import RunConfig
from pipelines.config.run_dir import read_run_config
from pipelines.engine.runner import Runner
from pipelines.lvd import find_copies
from pipelines.plan.dry_run import dry_run
from pipelines.rows.parts import Part, names_of, read_array
from pipelines.stages.copies.components import Decision, decide
from pipelines.stages.copies.dedup import Copies, read_copies, survivor_rank
from pipelines.stages.copies.saved_edges import DecidingEdges
from pipelines.stages.ingest.ingest import ingest
from pipelines.stages.shard.dataset import measured_recalls, num_edges_dropped
from pipelines.words import table_lines

NUM_EXAMPLES = 5
Names = Callable[[Iterable[int]], Mapping[int, str]]  # `pool/key` of global rows


@dataclass(frozen=True)
class Asked:
    """The thresholds of the question; None leaves the run's own."""

    threshold: float | None = None
    phash_radius: int | None = None
    pca_radius: int | None = None


def what_if(run_dir: str, asked: Asked) -> dict[str, Any]:
    """Decide again which images are copies.

    Args:
        run_dir: of a run that has come as far as dedup.
        asked: other thresholds, at or above those that edges were saved from.

    Returns:
        Plain data: thresholds, counts now and then, what is newly dropped and kept, edges just above and just
        below each threshold, the recall of an approximate search, and the components with an alarm.

    Raises:
        ConfigError: no saved edges, or none for these thresholds.
    """
    saved, (parts, copies), runner = _find(run_dir)
    rule = _asked_rule(saved, asked)
    firsts = np.asarray(read_array(copies.firsts))
    found = decide(parts, firsts, copies.edges, rank=survivor_rank(parts), rule=rule)
    now, names = read_copies(copies.copies), partial(names_of, parts)
    dropped_now, dropped_then = _dropped(now), _dropped(found.copies)
    newly_dropped = np.setdiff1d(dropped_then, dropped_now)
    newly_kept = np.setdiff1d(dropped_now, dropped_then)
    return {
        "thresholds": {"now": saved.thresholds, "then": rule.thresholds},
        "images": len(firsts),
        "components": {"now": _num_components(now), "then": found.health.num_rows},
        "dropped": {"now": len(dropped_now), "then": len(dropped_then)},
        "newly_dropped": len(newly_dropped),
        "newly_kept": len(newly_kept),
        "examples_newly_dropped": _copies_named(found.copies, newly_dropped, names),
        "examples_newly_kept": _copies_named(now, newly_kept, names),
        "edges": _edges_about(parts, copies, saved, rule=rule, names=names),
        "edges_dropped": num_edges_dropped(runner, by_joins=True) + found.num_dropped,
        "recall": measured_recalls(runner),
        "num_alarms": int(found.health["alarm"].to_numpy().sum()),
        "alarms": alarms(found, names),
    }


def _find(run_dir: str) -> tuple[DedupConfig, tuple[tuple[Part, ...], Copies], Runner]:
    """The run's rule, its parts and edges, and the receipts as far as dedup.

    The config is that of the dataset, whatever has run since; where there is none yet, that of the run.
    """
    run = find_run(run_dir)
    config = read_run_config(run_dir) if run is None else run.config
    dry = dry_run(config, _as_far_as_dedup)
    if dry.made is None:
        states = dry.runner.states
        raise ConfigError(
            f"{run_dir} has no saved edges",
            got=f"a run that has come as far as {states[-1].name}" if states else "no step",
            expected="a run that has ended, or at least come past dedup",
            remedy="Run its config again, with `--until dedup` if that is all that is wanted",
        )
    return config.dedup, dry.made, dry.runner


def _as_far_as_dedup(runner: Runner, config: RunConfig, *, refresh: bool) -> tuple[tuple[Part, ...], Copies]:
    return find_copies(runner, config, ingest(runner, config, refresh=refresh), refresh=refresh)


def _asked_rule(rule: DedupConfig, asked: Asked) -> DedupConfig:
    """The run's rule with other thresholds."""
    if asked.threshold is not None:
        floor = rule.saved_from
        if floor is None:
            raise _nothing_saved("cosine_threshold", asked.threshold)
        if not asked.threshold <= 1:  # nan as well
            raise ConfigError(
                "--threshold is a cosine, which no pair of images exceeds",
                got=asked.threshold,
                expected=f"{floor} (dedup.edge_floor, from which edges are saved) to 1",
            )
        if asked.threshold < floor:
            raise ConfigError(
                "No edges were saved for this threshold",
                got=asked.threshold,
                expected=f"{floor} (dedup.edge_floor, from which edges are saved) to 1",
                remedy="Set dedup.edge_floor to the threshold or below and run again: the join is done anew, "
                "nothing is described anew",
            )
    radii = {"phash_radius": asked.phash_radius, "pca_radius": asked.pca_radius}
    saved = {"phash_radius": rule.phash_radius, "pca_radius": rule.pca_radius}
    for name, radius in radii.items():
        if radius is None:
            continue
        if (limit := saved[name]) is None:
            raise _nothing_saved(name, radius)
        if not 0 <= radius <= limit:
            raise ConfigError(
                f"No edges were saved for this {name}",
                got=radius,
                expected=f"0 to {limit} (dedup.{name}, up to which edges are saved)",
                remedy=f"Set dedup.{name} to the larger one and run again: the join is done anew",
            )
    changed: dict[str, float | None] = {name: r for name, r in radii.items() if r is not None}
    if asked.threshold is not None:
        changed |= {"cosine_threshold": asked.threshold, "edge_floor": None}
    return DedupConfig.model_validate(rule.model_dump() | changed)


def _nothing_saved(name: str, value: float) -> ConfigError:
    needs = " and describe.descriptor (such as gist)" if name == "cosine_threshold" else ""
    return ConfigError(
        f"This run has no edges by {name}, so no other one can be asked about",
        got=value,
        expected=f"a run whose config sets dedup.{name}",
        remedy=f"Set dedup.{name}{needs} in its config and run it again",
    )


def _dropped(copies: pa.Table) -> Int64[np.ndarray, " r"]:
    return np.asarray(copies["row"].to_numpy()[copies["reason"].is_valid().to_numpy()])


def _num_components(copies: pa.Table) -> int:
    return len(np.unique(copies["component"].to_numpy()))


def _copies_named(copies: pa.Table, rows: Int64[np.ndarray, " r"], names: Names) -> list[dict[str, object]]:
    """The copies that are least like their representatives."""
    mine = np.flatnonzero(np.isin(copies["row"].to_numpy(), rows))
    score = copies["score"].to_numpy()[mine]
    shown = copies.take(pa.array(mine[np.lexsort((mine, score))][:NUM_EXAMPLES])).to_pylist()
    named = names(copy[name] for copy in shown for name in ("row", "representative"))
    return [
        {"image": named[c["row"]], "copy_of": named[c["representative"]], "score": c["score"]} for c in shown
    ]


def _edges_about(
    parts: Sequence[Part], copies: Copies, saved: DedupConfig, *, rule: DedupConfig, names: Names
) -> dict[str, Any]:
    """Of each kind, the edges just above the threshold and those just below that were saved."""
    # Equal pixels have one threshold, of which nobody asks another.
    floors = {kind: value for kind, value in saved.thresholds.items() if kind != "pixels"}
    floors |= {"cosine": saved.saved_from} if saved.saved_from is not None else {}
    none = Edges.joined([])
    above, below = dict.fromkeys(floors, none), dict.fromkeys(floors, none)
    for piece in DecidingEdges(copies.edges, floors, num_rows=parts[-1].offset + parts[-1].num_rows):
        for kind in floors:
            mine = piece.take(piece.kind == EDGE_KINDS.index(kind))
            decides = mine.score >= rule.thresholds[kind]
            above[kind] = _nearest(Edges.joined([above[kind], mine.take(decides)]), sign=1)
            below[kind] = _nearest(Edges.joined([below[kind], mine.take(~decides)]), sign=-1)
    return {
        kind: {
            "threshold": rule.thresholds[kind],
            "saved_from": floor,
            "just_above": _edges_named(above[kind], names),
            "just_below": _edges_named(below[kind], names),
        }
        for kind, floor in floors.items()
    }


def _nearest(edges: Edges, *, sign: int) -> Edges:
    order = np.lexsort((edges.b, edges.a, sign * edges.score))
    # Pieces may name a pair again, in either order: it is shown once, with the score that is nearest.
    pairs = np.stack([np.minimum(edges.a, edges.b), np.maximum(edges.a, edges.b)])[:, order]
    _, first = np.unique(pairs, axis=1, return_index=True)
    return edges.take(order[np.sort(first)][:NUM_EXAMPLES])


def _edges_named(edges: Edges, names: Names) -> list[dict[str, object]]:
    ends = list(zip(edges.a.tolist(), edges.b.tolist(), edges.score.tolist(), strict=True))
    named = names(row for a, b, _ in ends for row in (a, b))
    return [{"a": named[a], "b": named[b], "score": score} for a, b, score in ends]


_OF_HEALTH = ("size", "diameter", "diameter_is_exact")


def alarms(found: Decision, names: Names) -> list[dict[str, object]]:
    """Chains that join unlike images, those whose ends are least alike first."""
    health = found.health
    number = np.flatnonzero(health["alarm"].to_numpy())
    worst = np.minimum(health["ends_score"].to_numpy(), health["least_score"].to_numpy())[number]
    number = number[np.lexsort((number, worst))][:NUM_EXAMPLES]
    rows = health.take(pa.array(number)).to_pylist()
    ends = ("weakest_a", "weakest_b", "end_a", "end_b")
    named = names(row[end] for row in rows for end in ends)
    found_alarms = []
    for component, row in zip(number.tolist(), rows, strict=True):
        a, b, end_a, end_b = (named[row[end]] for end in ends)
        alarm = {"component": component, **{name: row[name] for name in _OF_HEALTH}}
        alarm["weakest_edge"] = {"a": a, "b": b, "score": row["weakest"], "kind": row["weakest_kind"]}
        found_alarms.append(alarm | {"ends": {"a": end_a, "b": end_b, "score": row["ends_score"]}})
    return found_alarms


def what_if_lines(found: dict[str, Any]) -> list[str]:
    """The answer for people."""
    then, now = found["thresholds"]["then"], found["thresholds"]["now"]
    rows: list[tuple[str, ...]] = [("", "now", "then")]
    asked = [kind for kind in now if kind != "pixels"]
    rows += [(kind, _threshold(kind, now[kind]), _threshold(kind, then[kind])) for kind in asked]
    for name in ("components", "dropped"):
        rows.append((name, f"{found[name]['now']:,}", f"{found[name]['then']:,}"))
    lines = table_lines(rows)
    lines.append(
        f"of {found['images']:,} images {found['newly_dropped']:,} newly dropped, "
        f"{found['newly_kept']:,} newly kept"
    )
    for name in ("newly_dropped", "newly_kept"):
        for copy in found[f"examples_{name}"]:
            score = f"{copy['score']:.4f}"
            lines.append(f"  {name.replace('_', ' ')}  {score}  {copy['image']}  copy of {copy['copy_of']}")
    lines += _edge_lines(found["edges"])
    lines += [_recall_line(recall) for recall in found["recall"]]
    if found["edges_dropped"]:
        lines.append(f"dedup.max_edges_per_row let {found['edges_dropped']:,} edges go, which are not asked")
    if found["num_alarms"]:
        lines.append(f"{found['num_alarms']:,} components chain images that are not alike:")
    lines += [_alarm_line(alarm) for alarm in found["alarms"]]
    return lines


def _edge_lines(edges: dict[str, Any]) -> list[str]:
    """The edges about each threshold; a pair that lies near several is listed once, with all that it has."""
    near: dict[frozenset[str], list[tuple[str, str]]] = {}
    for kind, about in edges.items():
        for where in ("just_above", "just_below"):
            for edge in about[where]:
                words = f"{kind} {_score(kind, edge['score'])}, {where.replace('_', ' ')}"
                near.setdefault(frozenset((edge["a"], edge["b"])), []).append((kind, words))
    lines = []
    for kind, about in edges.items():
        for where in ("just_above", "just_below"):
            lines.append(f"{kind}, {where.replace('_', ' ')} {_threshold(kind, about['threshold'])}:")
            for edge in about[where]:
                places = near[frozenset((edge["a"], edge["b"]))]
                if places[0][0] == kind:
                    others = "".join(f"  ({words} its threshold)" for _, words in places[1:])
                    lines.append(f"  {_score(kind, edge['score'])}  {edge['a']} – {edge['b']}{others}")
            if not about[where]:
                lines.append("  none saved" if where == "just_below" else "  none")
            elif lines[-1].endswith(":"):
                lines.append("  those named above")
    return lines


def _recall_line(recall: dict[str, Any]) -> str:
    about = "cosine edges were searched cell by cell"
    if recall["estimate"] is None:
        return f"{about}; recall unknown, as none of {recall['num_rows']:,} sampled images has a pair"
    return (
        f"{about}, which found {100 * recall['estimate']:.2f} % of {recall['num_pairs']:,} pairs of sampled "
        f"images (95 % confidence: {100 * recall['low']:.2f} to {100 * recall['high']:.2f} %)"
    )


def _alarm_line(alarm: dict[str, Any]) -> str:
    edge, ends = alarm["weakest_edge"], alarm["ends"]
    bound = "" if alarm["diameter_is_exact"] else "at least "
    is_one_pair = {edge["a"], edge["b"]} == {ends["a"], ends["b"]}
    weakest = "joined by" if is_one_pair else f"weakest edge {edge['a']} – {edge['b']}"
    return (
        f"  component {alarm['component']}: {alarm['size']:,} images, diameter {bound}{alarm['diameter']}, "
        f"ends {ends['a']} – {ends['b']} {ends['score']:.4f}; {weakest} {edge['kind']} {edge['score']:.4f}"
    )


def _score(kind: str, value: float) -> str:
    return f"{value:.4f}" if kind == "cosine" else _threshold(kind, value)


def _threshold(kind: str, value: float) -> str:
    return f"{value:g}" if kind == "cosine" else f"{round(64 * (1 - value))} bits"
