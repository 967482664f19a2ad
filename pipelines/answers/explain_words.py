"""The story of an image in plain words, for somebody who has not seen the code."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from curation.describe.phash import MIN_CERTAIN_BITS
from curation.printed import visible
from pipelines.words import MEANING, STAGE_VERB, counted, score, size, spaced

WIDTH = 108
MAX_NAMED = 8
KINDS = {
    "exact": "equal bytes",
    "phash": "perceptual hash",
    "cosine": "copy descriptor",
    "pca_hash": "PCA hash",
    "pixels": "pixels",
}
# Why an image is in the dataset.
KEPT = {
    "curated": "it is one of the trusted images",
    "retrieved_by_sample": "it is among the nearest images of a curated one",
    "retrieved_by_cluster": "its cluster holds enough curated images",
    "sampled": "it was drawn for the sample of the pool",
}
# What describe measured that is said elsewhere, or says nothing to people.
UNSAID = {
    "sha256", "num_bytes", "format", "width", "height", "reason", "warnings", "has_embedding", "phash",
    "embedder", "dim", "certain_bits",
}  # fmt: skip


def explain_lines(found: Mapping[str, Any]) -> list[str]:
    """An explanation for people: a headline, what the image is, and a paragraph for each stage."""
    lines: list[str] = []
    for image in found["images"]:
        if lines:
            lines.append("")
        lines += [_headline(image), *_identity(image)]
        for stage, text in _paragraphs(image):
            lines += textwrap.wrap(
                text,
                WIDTH,
                initial_indent=f"  {stage:<15}",
                subsequent_indent=" " * 17,
                break_on_hyphens=False,
            )
        lines += _members(image)
    return lines


def _headline(image: Mapping[str, Any]) -> str:
    name = f"{visible(image['pool'])}/{visible(image['key'])}"
    if image["decision"] == "kept":
        return f"{name} is in the dataset: {KEPT[image['reason']]}."
    verb = STAGE_VERB[image["stage"]]
    return f"{name} is not in the dataset ({image['stage']}: {verb}). {MEANING[image['reason']]}"


def _identity(image: Mapping[str, Any]) -> list[str]:
    picture = (
        f"{image['width']} × {image['height']} px {image['format']}" if image["width"] else "not decoded"
    )
    num_bytes = image["story"].get("describe", {}).get("num_bytes")
    if num_bytes:
        picture += f", {size(num_bytes)}"
    name = image["image_id"] or "none: no bytes were read"
    return [
        f"  id             {name}",
        f"  picture        {picture}",
        f"  file           {visible(image['uri'])}",
    ]


def _paragraphs(image: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    story = image["story"]
    if "ingest" not in story:
        yield "", _cause(image)
        yield "", "The run's intermediate data is gone, so what each stage measured is not known any more."
    else:
        yield "ingest", _ingest(image, story["ingest"])
        yield "describe", _describe(story["describe"])
        if story["describe"]["reason"] is None:
            yield "judge", _judge(image, story["judge"])
            if image["stage"] != "judge":
                yield from _after_judge(image, story)
    if image["decision"] == "kept":
        yield "shard", _shard(image, story["shard"])
    elif image["stage"] == "shard":
        yield "shard", f"Lost while writing: {spaced(image['reason'])}."


def _after_judge(image: Mapping[str, Any], story: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if story["ingest"]["role"] == "holdout":
        yield (
            "decontaminate",
            "An evaluation image: others are compared with it, and it never enters the dataset.",
        )
        return
    yield "dedup", _dedup(story["dedup"])
    yield "decontaminate", _decontaminate(story["decontaminate"])
    if story["cluster"] is not None:
        yield "cluster", _cluster(story["cluster"])
    for answer in story["retrieve"]:
        yield "retrieve", _retrieve(answer)
    if image["stage"] in ("retrieve", "select", "shard"):
        yield "select", _select(image, story["select"])


def _cause(image: Mapping[str, Any]) -> str:
    if image["by_key"] is None:
        return f"Reason: {spaced(image['reason'])}."
    by = f"{visible(image['by_pool'])}/{visible(image['by_key'])}"
    at = "" if image["score"] is None else f", score {score(image['score'])}"
    return f"Reason: {spaced(image['reason'])}, because of {by}{at}."


def _ingest(image: Mapping[str, Any], source: Mapping[str, Any]) -> str:
    text = (
        f"Image {source['row_of_part'] + 1:,} of {source['rows_of_part']:,} in part {source['part'] + 1:,} "
        f"of {source['num_parts']:,}; pool {visible(image['pool'])} is {source['role']}."
    )
    if source["sidecars"]:
        text += f" Came with {', '.join(map(visible, source['sidecars']))}."
    return text


def _describe(seen: Mapping[str, Any]) -> str:
    if seen["reason"] is not None:
        said = f" The decoder said: {_remarks(seen)}." if seen["warnings"] else ""
        return f"Refused: {spaced(seen['reason'])}. {MEANING[seen['reason']]}{said}"
    measured = [
        f"{spaced(name)} {value:.4g}"
        for name, value in seen.items()
        if name not in UNSAID and isinstance(value, int | float) and not isinstance(value, bool)
    ]
    hashed = f"perceptual hash {seen['phash']}, of which {seen['certain_bits']} bits of 64 are certain"
    text = f"Decoded. Measured: {', '.join([*measured, hashed])}."
    if seen["has_poor_hash"]:
        text += (
            f" That is a poor hash, as {MIN_CERTAIN_BITS} certain bits are asked for, so near hashes and "
            "near descriptors say nothing here: only equal pixels, to within what re-encoding changes, make "
            "a copy."
        )
    has = f"An embedding of {seen['dim']:,} numbers by {visible(seen['embedder'])}."
    text += " " + (has if seen["has_embedding"] else f"No embedding by {visible(seen['embedder'])}.")
    if seen["warnings"]:
        text += f" The decoder warned: {_remarks(seen)}."
    return text


def _remarks(seen: Mapping[str, Any]) -> str:
    """Our own words, and decoders' as they are: these have a name and a colon in front."""
    return "; ".join(visible(said) if ": " in said else spaced(said) for said in seen["warnings"])


def _judge(image: Mapping[str, Any], judged: Mapping[str, Any]) -> str:
    shown = []
    for bound in judged["bounds"]:
        kind, _, measure = bound["field"].removeprefix("judge.").partition("_")
        side = {"min_side_px": "shorter ", "max_side_px": "longer "}.get(f"{kind}_{measure}", "")
        word = "at least" if kind == "min" else "at most"
        value = "unknown" if bound["measured"] is None else f"{bound['measured']:.4g}"
        mark = "" if bound["passes"] else ": not met"
        shown.append(f"{side}{spaced(measure)} {value} ({word} {bound['limit']:g}{mark})")
    verdict = f"Not usable: {spaced(image['reason'])}." if image["stage"] == "judge" else "Usable:"
    return f"{verdict} {', '.join(shown)}{'' if not shown else '.'}"


def _limits(thresholds: Mapping[str, float]) -> str:
    if not thresholds:
        return "only equal bytes are copies"
    return "a copy is one from " + " or ".join(
        f"{value:.4g} by {KINDS[k]}" for k, value in thresholds.items()
    )


def _dedup(group: Mapping[str, Any]) -> str:
    limits = _limits(group["thresholds"])
    if group["component"] is None:
        if not group["is_compared"]:
            return "Not compared: its pool only searches."
        return f"No other image is a copy of it ({limits})."
    text = (
        f"In component {group['component']:,}, {counted(group['size'], 'image')} that are copies ({limits}). "
    )
    if group["is_representative"]:
        text += "It is the one that stays for all. "
    else:
        stays = visible(group["representative"])
        text += f"{stays} stays, and it is {spaced(group['reason'])}: the two score {score(group['score'])}. "
    edge = group["weakest_edge"]
    text += (
        f"The weakest edge of the component is {visible(edge['a'])} – {visible(edge['b'])}: "
        f"{score(edge['score'])} by {KINDS[edge['kind']]}."
    )
    return text + (" Alarm: it may be a chain of copies that joins unlike images." if group["alarm"] else "")


def _decontaminate(found: Mapping[str, Any]) -> str:
    if not found["holdouts"]:
        return "There are no evaluation images to compare it with."
    if not found["is_compared"]:
        return "Not compared with evaluation images: of its pool nothing is dropped as a leak."
    pools, limits = " and ".join(map(visible, found["holdouts"])), _limits(found["thresholds"])
    if found["leak"] is None:
        return f"No copy of an evaluation image of {pools} ({limits})."
    leak = found["leak"]
    through = "by "
    if leak["by_component"]:
        cosine = found["component_threshold"]
        held = "" if cosine is None else f" of images that are alike from {cosine:.4g} by copy descriptor"
        through = f"through its component{held}, by "
    return (
        f"It leaks the evaluation image {visible(leak['holdout'])}: score {score(leak['score'])} "
        f"{through}{KINDS[leak['kind']]} ({limits})."
    )


def _cluster(found: Mapping[str, Any]) -> str:
    seeds = [f"{num:,} of {visible(pool)}" for pool, num in found["seeds"].items() if num]
    those = f"its seeds, curated images in it: {', '.join(seeds)}" if seeds else "no curated one is in it"
    return (
        f"In cluster {found['cluster']:,} of {counted(found['size'], 'image')}, {found['num_pool']:,} of "
        f"searched pools; {those}. Its similarity to the centre: {score(found['closeness'])}."
    )


def _retrieve(answer: Mapping[str, Any]) -> str:
    pool, rule = visible(answer["pool"]), answer["rule"]
    if "num_brought" in answer:
        if not answer["num_brought"]:
            return "It brought in no image of the pool."
        shown = ", ".join(f"{visible(b['image'])} ({score(b['score'])})" for b in answer["brought"])
        return f"It brought in {counted(answer['num_brought'], 'image')} of the pool, nearest first: {shown}."
    if answer["num_hits"]:
        return _hits(answer, pool, by_sample=rule["method"] == "sample")
    if rule["method"] == "cluster":
        return (
            f"Not brought in by {pool}: its cluster has {counted(answer['num_seeds'], 'seed')} of it, and "
            f"gives images from {rule['min_seed_hits']:,} on, the {rule['per_cluster']:,} nearest the "
            f"centre and {rule['cap']:,} in all."
        )
    missed = answer["missed"]
    if missed is None:
        return f"Not brought in by {pool}, which brought in nothing."
    nearest, closest = missed["nearest"], missed["closest"]
    text = f"Not brought in by {pool}: each of its images takes the {rule['neighbours']:,} nearest. "
    if nearest["by"] != closest["by"]:
        text += f"Most like it is {visible(nearest['by'])}, score {score(nearest['score'])}. "
    gap = closest["needed"] - closest["score"]
    return text + (
        f"It came closest to being taken by {visible(closest['by'])}: score {score(closest['score'])}, where "
        f"the last one taken had {score(closest['needed'])}; {gap:.4f} were missing."
    )


def _hits(answer: Mapping[str, Any], pool: str, *, by_sample: bool) -> str:
    shown = []
    for hit in answer["hits"]:
        if by_sample:
            rank = _ordinal(hit["rank"])
            shown.append(f"{visible(hit['by'])}, whose {rank} nearest it is ({score(hit['score'])})")
        else:
            seed = f", where {visible(hit['by'])} is the seed nearest the centre" if hit["by"] else ""
            at = f"{score(hit['score'])} to the centre"
            shown.append(f"its cluster, as the {_ordinal(hit['rank'])} that it gives ({at}){seed}")
    more = answer["num_hits"] - len(shown)
    rest = f" and {counted(more, 'other image')}" if more > 0 else ""
    return f"Brought in by {pool}, through {'; '.join(shown)}{rest}."


def _ordinal(number: int) -> str:
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{suffix}"


def _select(image: Mapping[str, Any], rule: Mapping[str, Any]) -> str:
    reason = image["reason"]
    if image["decision"] == "kept" or image["stage"] == "shard":
        return f"Chosen: {KEPT.get(reason, 'it was selected')}."
    cap = f" The cap is {rule['max_images']:,} images." if reason == "over_cap" and rule["max_images"] else ""
    return f"Not chosen: {MEANING[reason]}{cap}"


def _shard(image: Mapping[str, Any], place: Mapping[str, Any]) -> str:
    members = [f"{m['name']} at byte {m['offset']:,} ({size(m['num_bytes'])})" for m in place["members"]]
    return f"Sample {image['shard_index']:,} of {image['shard']}: {', '.join(members)}."


def _members(image: Mapping[str, Any]) -> list[str]:
    """The other images of its component."""
    if not image["copies"]:
        return []
    lines = ["  its component:"]
    lines += [
        f"    {m['decision']:<8}{spaced(m['reason']):<22}{visible(m['pool'])}/{visible(m['key'])}"
        for m in image["copies"][:MAX_NAMED]
    ]
    more = len(image["copies"]) - MAX_NAMED
    return lines + ([f"    and {more:,} more"] if more > 0 else [])
