"""The commands of `lvd` that train a model, measure it and hand it on.

What a command needs is imported once it is given: all of it brings torch.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.errors import ConfigError, StoppedError
from curation.printed import visible
from pipelines.cli.command_parser import path_argument
from pipelines.cli.shared_flags import add_command, add_config_arguments, config_arguments, show
from pipelines.words import table_lines

Result = tuple[dict[str, Any], list[str]]  # for machines, and in lines

if TYPE_CHECKING:
    from pipelines.config.run_config import RunConfig
    from pipelines.training.chain import ChainOutcome
    from pipelines.training.evaluate import Measured
    from pretrain.config import PretrainConfig

DEGRADED = 3  # the exit code of what is done, but for what could not be read
FORMATS = ("huggingface", "timm", "official", "safetensors", "onnx", "torch_export")


def add_pretrain(commands: Any) -> None:
    """`lvd pretrain`."""
    pretrain = add_command(
        commands, "pretrain", _pretrain,
        does="train a vision transformer on a dataset (DINOv2)",
        text="Train what CONFIG describes on the shards of a finished run. CONFIG is the config of a "
        "training, or that of a run with a section `pretrain`, which is trained on what the run has "
        "curated. Stopped or killed, the same command goes on from the last checkpoint; SIGTERM saves one "
        "first. In place of CONFIG, a training that has begun (its run directory or one of its checkpoints) "
        "is made longer, cooled down early (--set schedule.tail=…), or, with --set run_dir=…, branched into "
        "a new one. parallel.processes > 1 starts so many processes on this machine; under torchrun it takes "
        "its place among those that are there. Exit codes: 0 done, 1 failed, 2 bad usage or config, 130 "
        "stopped by Ctrl-C, 143 by SIGTERM.",
        example="lvd pretrain small_gpu.yaml --set data.path=runs/first --set run_dir=runs/vits",
    )  # fmt: skip
    add_config_arguments(pretrain)


def add_adapt(commands: Any) -> None:
    """`lvd adapt`."""
    adapt = add_command(
        commands, "adapt", _pretrain,
        does="go on with a trained model at another size, such as 518 px",
        text="Begin a stage of its own with everything that a training has come to: backbone, both heads, "
        "teacher, centres, and AdamW's moments. CONFIG says what is new, such as the size of the crops and "
        "the schedule; all else is as it was in the training that start.checkpoint names. It goes on, stops "
        "and exits as `lvd pretrain` does.",
        example="lvd adapt adapt_518.yaml --set start.checkpoint=runs/vits --set run_dir=runs/vits-518",
    )  # fmt: skip
    add_config_arguments(adapt)


def add_distill(commands: Any) -> None:
    """`lvd distill`."""
    distill = add_command(
        commands, "distill", _distill,
        does="make small models of a large one that is trained",
        text="Let the students that CONFIG describes learn from a frozen teacher: a training of ours, whose "
        "heads make the targets, or an official, Hugging Face or timm backbone, whose features are "
        "predicted. The teacher looks at each batch once, for all of them. Each has a folder "
        "RUN_DIR/students/NAME, which is like that of a training. It goes on, stops and exits as "
        "`lvd pretrain` does.",
        example="lvd distill distill_vits14.yaml --set teacher.path=runs/vitl --set data.path=runs/first",
    )  # fmt: skip
    add_config_arguments(distill)


def add_chain(commands: Any) -> None:
    """`lvd chain`."""
    chain = add_command(
        commands, "chain", _chain,
        does="pretrain, adapt, distil, measure and export, one after the other",
        text="Do the trainings that CONFIG describes, each of which begins with what the one before has come "
        "to, measure every model and write the small ones for other programs. What is done is checked and "
        "not done again: stopped or killed, the same command goes on. Every link names the one before by "
        "SHA-256, in chain.json.",
        example="lvd chain chain_tiny_cpu.yaml --set data.path=runs/first",
    )  # fmt: skip
    add_config_arguments(chain)


def add_evaluate(commands: Any) -> None:
    """`lvd evaluate`."""
    evaluate = add_command(
        commands, "evaluate", _evaluate,
        does="k-NN accuracy of embedders and trained models on labelled images",
        text="Classify the images of one folder by their nearest neighbours in another, in the vectors of "
        "each EMBEDDER, and tell RankMe, the effective number of directions that they fill: 1 says that the "
        "model has collapsed.",
        example="lvd evaluate pixels gist runs/first/pretrain --train data/train --test data/val",
    )  # fmt: skip
    evaluate.add_argument(
        "embedders", metavar="EMBEDDER", nargs="+",
        help="gist, vit:CHECKPOINT, timm:NAME or any other of describe.embed.embedder; a bare path is a "
        "CHECKPOINT; pixels: the picture itself at 32 px, the floor",
    )  # fmt: skip
    for name, what in (("train", "the neighbours"), ("test", "what is classified")):
        evaluate.add_argument(
            f"--{name}", type=path_argument, required=True, metavar="DIR",
            help=f"{what}: a folder with a folder for each class",
        )  # fmt: skip
    evaluate.add_argument(
        "--k", default=(10, 20), type=_neighbours, metavar="K,K",
        help="numbers of neighbours (default: 10,20)",
    )  # fmt: skip
    evaluate.add_argument(
        "--size", type=int, metavar="PX", help="side of a model's input (default: the model's own)"
    )


def add_export(commands: Any) -> None:
    """`lvd export`."""
    export = add_command(
        commands, "export", _export,
        does="write a trained backbone for other programs",
        text="Write the backbone of CHECKPOINT (a run directory of `lvd pretrain`, one of its checkpoints, "
        "or a weights file) for Hugging Face's transformers, for timm, under the official names as a .pth "
        "file, as one .safetensors file, or as a graph: an .onnx file, or a .pt2 file of torch.export, which "
        "are loaded again and compared with the model before they appear. A card says what it is.",
        example="lvd export runs/first/pretrain --format huggingface --out vits-hf",
    )  # fmt: skip
    export.add_argument("checkpoint", metavar="CHECKPOINT")
    export.add_argument("--format", required=True, choices=FORMATS, help="for whom")
    export.add_argument(
        "--out", type=path_argument, required=True, metavar="PATH",
        help="a directory (huggingface, timm), with the card as README.md in it, or a file, with the card as "
        "PATH.md beside it",
    )  # fmt: skip
    export.add_argument(
        "--size", type=int, metavar="PX",
        help="of onnx and torch_export: the only height and width (default: any multiple of the patch)",
    )  # fmt: skip
    export.add_argument(
        "--license", metavar="ID", help="of the weights, for the card, such as apache-2.0 (default: unknown)"
    )


def pretrain_after(config: "RunConfig", arguments: Sequence[str]) -> Path:
    """Train on what a run has curated; returns the last checkpoint."""
    from pipelines.training.pretraining import pretrain, pretraining_of

    return pretrain(pretraining_of(config), arguments=["pretrain", *arguments])


def _pretrain(arguments: argparse.Namespace) -> int:
    return _in_ranks(arguments, _trained)


def _distill(arguments: argparse.Namespace) -> int:
    return _in_ranks(arguments, _distilled)


def _in_ranks(arguments: argparse.Namespace, work: Callable[[argparse.Namespace], Result]) -> int:
    """Train, as a lone process or as one of several, of which one tells what came out."""
    from pipelines.training import torchrun

    try:
        with torchrun.exit_code_noted():
            if torchrun.rank() == 0 and not torchrun.is_launched_by_lvd():  # whoever launches has said it
                from pipelines.training.first_word import say_first_word

                say_first_word(arguments.config, arguments.overrides, kind=arguments.name)
            found, lines = work(arguments)
    except (ConfigError, StoppedError) as error:
        if not torchrun.is_first_here():  # the first process of this machine says the same
            torchrun.let_first_speak()
            return error.exit_code
        raise
    if not torchrun.rank() and not torchrun.is_launched_by_lvd():
        show(arguments, found, lines)
    return 0


def _again(arguments: argparse.Namespace) -> list[str]:
    """The same command, for other processes."""
    return [arguments.name, *config_arguments(arguments.config, arguments.overrides)]


def _trained(arguments: argparse.Namespace) -> Result:
    from pipelines.training.pretraining import pretrain

    checkpoint = pretrain(_training_of(arguments), arguments=_again(arguments))
    return {"checkpoint": str(checkpoint)}, [f"checkpoint: {checkpoint}"]


def _distilled(arguments: argparse.Namespace) -> Result:
    from pipelines.training.distilling import distill, load_distillation

    config = load_distillation(arguments.config, arguments.overrides)
    checkpoints = distill(config, arguments=_again(arguments))
    found = {name: str(checkpoint) for name, checkpoint in checkpoints.items()}
    return {"checkpoints": found}, [f"checkpoint of {name}: {path}" for name, path in found.items()]


def _training_of(arguments: argparse.Namespace) -> "PretrainConfig":
    """The training that is meant: of a config, or one that has begun, or another stage of that."""
    from pipelines.training.continuing import load_adaptation, load_continuation
    from pipelines.training.pretraining import load_pretraining

    if arguments.name == "adapt":
        return load_adaptation(arguments.config, arguments.overrides)
    if Path(arguments.config).is_dir():
        return load_continuation(arguments.config, arguments.overrides)
    return load_pretraining(arguments.config, arguments.overrides)


def _chain(arguments: argparse.Namespace) -> int:
    from pipelines.engine.progress import Progress
    from pipelines.training.first_word import say_first_word

    say_first_word(arguments.config, arguments.overrides, kind="chain")
    from pipelines.training.chain import load_chain, run_chain

    outcome = run_chain(load_chain(arguments.config, arguments.overrides), say=Progress().say)
    links = [asdict(link) for link in outcome.links]
    measured = {name: asdict(one) for name, one in outcome.measured.items()}
    show(arguments, {"links": links, "measured": measured}, chain_lines(outcome))
    return 0


def chain_lines(outcome: "ChainOutcome") -> list[str]:
    """A table of the links, and one of what the models are worth."""
    rows = [("link", "step", "SHA-256", "begun with", "path")]
    for link in outcome.links:
        step = "" if link.step is None else f"{link.step:,}"
        rows.append((link.name, step, link.sha256[:12], (link.parent or "")[:12], link.path))
    lines = table_lines(rows)
    if outcome.measured:
        lines += ["", *measured_lines(list(outcome.measured.values()), names=list(outcome.measured))]
    return lines


def _evaluate(arguments: argparse.Namespace) -> int:
    from pipelines.training.evaluate import evaluate

    folders = {"train": arguments.train, "test": arguments.test}
    found = [
        evaluate(embedder, neighbours=arguments.k, size_px=arguments.size, **folders)
        for embedder in arguments.embedders
    ]
    show(arguments, [asdict(measured) for measured in found], measured_lines(found))
    return DEGRADED if any(measured.unread for measured in found) else 0


def measured_lines(found: "Sequence[Measured]", names: Sequence[str] = ()) -> list[str]:
    """A table of what was measured, and on how many images; under these names, if there are any."""
    rows = [("embedder", "dim", *(f"k-NN, k = {k}" for k in found[0].knn), "RankMe")]
    for name, one in zip(names or [one.embedder for one in found], found, strict=True):
        shares = (f"{share:.1%}" for share in one.knn.values())
        rows.append((name, f"{one.dim:,}", *shares, f"{one.rank_me:.1f}"))
    lines = table_lines(rows)
    lines.append(f"{found[0].num_test:,} images classified by {found[0].num_train:,}")
    if unreadable := max(one.num_unreadable for one in found):
        lines.append(f"{unreadable:,} files cannot be read or decoded and are left out")
    for word, told in (("not read", found[0].unread), ("note", found[0].notes)):
        lines += [f"{word}: {visible(f'{one.path}: {one.what}: {one.detail}')}" for one in told]
    return lines


def _export(arguments: argparse.Namespace) -> int:
    from pretrain.export import card_path, export

    out = export(
        arguments.checkpoint,
        format=arguments.format,
        out=arguments.out,
        size_px=arguments.size,
        license_id=arguments.license,
    )
    card = card_path(out, arguments.format)
    show(arguments, {"out": str(out), "card": str(card)}, [str(out), f"card: {card}"])
    return 0


def _neighbours(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text}: whole numbers from 1 on are expected, such as 10,20")
    return numbers
