"""The plan of a training for people, and as plain data."""

import time
from collections.abc import Iterator

from pipelines.plan.training.answer import TrainingPlan
from pipelines.plan.training.fits import RESERVED, Option
from pipelines.words import counted, seconds, size, table_lines
from pretrain.cost.shape import backbone_parameters
from pretrain.cost.work import image_flops

MOST_OPTIONS = 10
HEAD = ("arch", "batch", "accumulate", "checkpointed", "memory", "time", "set")


def training_lines(plan: TrainingPlan, *, now: float | None = None) -> list[str]:
    """The plan as lines: memory by term, time, and what fits where it does not.

    Args:
        plan: to tell.
        now: seconds since 1970, from which the end is counted; None: the clock's.
    """
    return [
        *_what(plan),
        "",
        *_memory(plan),
        "",
        *_time(plan, time.time() if now is None else now),
        *_verdict(plan),
    ]


def _what(plan: TrainingPlan) -> Iterator[str]:
    shape, student = plan.shape, plan.shape.students[0]
    who = counted(shape.ranks, _who(plan))
    way = "" if shape.accumulate == 1 else f" in {shape.accumulate:,} micro-batches"
    yield (
        f"{plan.config.name}: {plan.config.model.arch}, patches of {student.backbone.patch_px} px; "
        f"{shape.iterations:,} iterations of {shape.batch_images:,} images{way}, on {who}, {shape.dtype}"
    )
    backbone = backbone_parameters(student.backbone)
    heads = student.head_parameters
    yield f"parameters: {_millions(backbone)} of the backbone, {_millions(heads)} of the heads"


def _who(plan: TrainingPlan) -> str:
    return "card" if plan.shape.device == "cuda" else "process"


def _memory(plan: TrainingPlan) -> Iterator[str]:
    peak = plan.peak
    rows = [(f"memory of a {_who(plan)}", "bytes")]
    rows += [(name, size(value)) for name, value in peak.terms.items() if value]
    rows.append(("in all", size(peak.num_bytes)))
    yield from table_lines(rows)
    yield (
        f"this is its highest, at {peak.name} of a step; the driver, and gaps that the allocator leaves, "
        "come on top"
    )


def _time(plan: TrainingPlan, now: float) -> Iterator[str]:
    speed, shape, left_s = plan.speed, plan.shape, plan.seconds
    if speed is None or left_s is None:
        yield (
            "no rate is known of this training: `--measure` does some steps here, `--like RUN_DIR` takes "
            "that of another training, `--rates FILE` a published one, such as a100.yaml"
        )
        return
    step_s = speed.of_step(shape.rank_images)
    left = shape.iterations - speed.num_done
    done = f", {speed.num_done:,} are done" if speed.num_done else ""
    what = "an estimate from published rates: " if speed.is_published else ""
    yield (
        f"{what}{shape.batch_images / step_s:,.1f} images/s, {seconds(step_s)} a step; "
        f"{left:,} iterations{done}: {seconds(left_s)}, until {_date(now + left_s)}"
    )
    yield f"rate from {speed.source}"
    if speed.is_loading(shape.rank_images):
        yield "what limits it is the loading of images: more data.workers, or more cores"
    elif speed.load_image_s is None and speed.knows_loading:
        yield f"what limits it is the {_who(plan)}: it does not wait for data"
    elif speed.load_image_s is None:
        yield (
            "the loading of images is not in it: it must give "
            f"{shape.rank_images / step_s:,.1f} images/s for each card"
        )
    else:
        loaded = f"loading gives {1 / speed.load_image_s:,.1f} images/s for each"
        yield f"what limits it is the {_who(plan)}: {loaded}"


def _verdict(plan: TrainingPlan) -> Iterator[str]:
    limits = plan.limits
    if limits.memory_bytes is None and limits.deadline_s is None:
        return
    yield ""
    wanted = []
    if limits.memory_bytes is not None:
        wanted.append(f"a card of {size(round(limits.memory_bytes))}, of which {RESERVED:.0%} is left free")
    if limits.deadline_s is not None:
        wanted.append(f"{seconds(limits.deadline_s)} of time")
    asked = ", and ".join(wanted)
    if limits.deadline_s is not None and plan.speed is None:
        yield "whether it is done in time nobody knows: no rate is known"
    if plan.fits:
        yield f"it fits {asked}"
        return
    yield f"it does not fit {asked}"
    if not plan.options:
        yield (
            "nothing else does: no size of model, no batch down to a sixteenth, in micro-batches of however "
            "few images"
        )
        return
    yield "what fits, best first:"
    yield from table_lines([HEAD, *(_row(option) for option in plan.options[:MOST_OPTIONS])])
    if (more := len(plan.options) - MOST_OPTIONS) > 0:
        yield f"and {more:,} more (--json lists all)"
    if any(option.batch_images < plan.shape.batch_images for option in plan.options[:MOST_OPTIONS]):
        yield "a smaller batch sees fewer images in as many iterations; the learning rate follows its root"


def _row(option: Option) -> tuple[str, ...]:
    return (
        option.arch, f"{option.batch_images:,}", f"{option.accumulate:,}",
        "yes" if option.checkpoint_activations else "no", size(option.peak_bytes),
        "" if option.seconds is None else seconds(option.seconds), option.flags,
    )  # fmt: skip


def _millions(value: int) -> str:
    return f"{value / 1e6:,.1f} M"


def _date(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when))


def training_data(plan: TrainingPlan) -> dict[str, object]:
    """The plan as plain data; bytes are of one card, seconds of what is left."""
    shape, speed = plan.shape, plan.speed
    return {
        "parameters": {
            "backbone": backbone_parameters(shape.students[0].backbone),
            "heads": shape.students[0].head_parameters,
        },
        "batch_images": shape.batch_images,
        "iterations": shape.iterations,
        "cards": vars(plan.cards),
        "accumulate": shape.accumulate,
        "checkpoint_activations": shape.checkpoint_activations,
        "flops_per_image": image_flops(shape),
        "peak_bytes": plan.peak.num_bytes,
        "moments": [{"name": moment.name, "bytes": dict(moment.terms)} for moment in plan.moments],
        "images_per_s": speed and shape.batch_images / speed.of_step(shape.rank_images),
        "seconds": plan.seconds,
        "num_done": speed.num_done if speed else None,
        "rate_source": speed and speed.source,
        "is_published": speed.is_published if speed else None,
        "limits": "loading" if speed and speed.is_loading(shape.rank_images) else "card",
        "fits": plan.fits,
        "options": [{**vars(option), "settings": dict(option.settings)} for option in plan.options],
    }
