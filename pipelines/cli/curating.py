"""The commands of `lvd` that make a dataset: init, run, plan and demo.

What a command needs is imported once it is given: of a run that is the whole flow.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.errors import ConfigError
from pipelines.cli.amount_arguments import bytes_argument, seconds_argument
from pipelines.cli.command_parser import count_argument, path_argument
from pipelines.cli.shared_flags import add_command, add_config_arguments, config_arguments, show
from pipelines.engine.flow import FLOW
from pipelines.engine.output import print_json, print_lines

if TYPE_CHECKING:
    from pipelines.config.run_config import ExecutorConfig

EXECUTORS = ("auto", "ray", "local")


def add_init(commands: Any) -> None:
    """`lvd init`."""
    init = add_command(
        commands, "init", _init,
        does="write the config of a first run on your own folders",
        text="Write a config for the images in DIR: what kind of files each folder holds is told by their "
        "names. With --trust, what resembles your own images is taken from DIR; without, copies are removed. "
        "It says which embedder to take, and what to run next.",
        example="lvd init /data/web --trust /data/mine --holdout /data/evaluation",
    )  # fmt: skip
    init.add_argument("folders", nargs="+", metavar="DIR", type=path_argument, help="images to be searched")
    init.add_argument(
        "--trust", action="append", default=[], metavar="DIR", type=path_argument,
        help="images that you trust; may be given again",
    )  # fmt: skip
    init.add_argument(
        "--holdout", action="append", default=[], metavar="DIR", type=path_argument,
        help="images that must not leak into the dataset, such as evaluation images; may be given again",
    )  # fmt: skip
    init.add_argument("--name", default="first", help="of the dataset (default: first)")
    init.add_argument(
        "--out", type=path_argument, default="first.yaml", metavar="FILE", help="default: first.yaml"
    )


def add_run(commands: Any) -> None:
    """`lvd run`."""
    run = add_command(
        commands, "run", _run,
        does="curate: from sources to shards, and on to a trained model",
        text="Curate what CONFIG describes and, where it has a section `pretrain`, train on the dataset as "
        "`lvd pretrain CONFIG` does. Stopped or killed, the same command goes on where it was. Exit codes: "
        "0 done, 1 failed, 2 bad usage or config, 3 done but some source could not be read, 4 done but the "
        "dataset is empty, 130 stopped by Ctrl-C, 143 by SIGTERM.",
        example="lvd run curate.yaml --set pools.web.sources.0.path=/data/web --executor local",
    )  # fmt: skip
    add_config_arguments(run)
    run.add_argument("--executor", choices=EXECUTORS, help="where the work is done (executor.kind)")
    run.add_argument("--address", help="of a running Ray cluster, such as auto (executor.address)")
    run.add_argument("--workers", type=count_argument, help="at most so many workers (executor.workers)")
    run.add_argument("--until", choices=FLOW, metavar="STAGE", help=f"stop after a stage: {', '.join(FLOW)}")
    run.add_argument(
        "--refresh", action="store_true", help="list the sources anew and retry what could not be read"
    )


def add_plan(commands: Any) -> None:
    """`lvd plan`."""
    plan = add_command(
        commands, "plan", _plan,
        does="what would run, what is done already, and what the rest would cost",
        text="Show each step of CONFIG: its items, how many of them are done in the run directory, and for "
        "those to do the hours, bytes and memory. Rates come from the receipts of this run or of another one "
        "(--like), from a file (--rates), or from running the steps on a small sample, in a folder of its "
        "own. Of a training (the config of one, or the section `pretrain` of a run's) show its parameters, "
        "the memory of a card by what takes it, and its time; where that is more than --memory or --deadline "
        "allow, what fits instead. Its rate is that at which it went so far, or comes from --like, --measure "
        "or --rates. Nothing is written to the run directory.",
        example="lvd plan lvd142m.yaml --images 1.2e9 --nodes 20 --gpus 8 --rates v100.yaml",
    )  # fmt: skip
    add_config_arguments(plan)
    plan.add_argument(
        "--like", type=path_argument, metavar="RUN_DIR", help="take rates from the receipts of this run"
    )
    plan.add_argument(
        "--rates", type=path_argument, metavar="FILE",
        help="take rates of another kind of worker from this file",
    )  # fmt: skip
    plan.add_argument(
        "--images", action="append", default=[], metavar="[POOL=]N",
        help="plan for so many images, all to do: of a pool, or of all uncurated pools; may be given again",
    )  # fmt: skip
    for flag, default, what in (
        ("--workers", None, "workers like those of this machine"),
        ("--nodes", 1, "machines like this (default: 1)"),
        ("--gpus", None, "of each: for --rates, and cards of a training (default: 1)"),
    ):
        plan.add_argument(flag, type=count_argument, default=default, metavar="N", help=what)
    plan.add_argument("--no-probe", action="store_true", help="measure nothing: only tell how far it is")
    plan.add_argument("--explain", action="store_true", help="say how the cost of each step grows")
    training = plan.add_argument_group("of a training")
    training.add_argument(
        "--memory", type=bytes_argument, metavar="SIZE", help="of one card, such as 24GB: what fits it?"
    )
    training.add_argument(
        "--deadline", type=seconds_argument, metavar="TIME", help="such as 12h or 3d: what is done by then?"
    )
    training.add_argument("--measure", action="store_true", help="do some of its steps here, and time them")


def add_demo(commands: Any) -> None:
    """`lvd demo`."""
    demo = add_command(
        commands, "demo", _demo,
        does="the whole thing, small: no arguments, no network, no GPU",
        text="Draw a small synthetic web with known truth, train a ViT on its trusted images, curate the web "
        "with it, train on the result, and print what was measured against the truth. It takes some minutes. "
        "Exit code 1 when copies or leaks are missed, or the training taught nothing.",
    )  # fmt: skip
    demo.add_argument(
        "--out", type=path_argument, default="runs/demo", metavar="DIR", help="where to (default: runs/demo)"
    )
    demo.add_argument("--executor", choices=EXECUTORS, default="auto", help="default: auto")
    demo.add_argument("--seed", type=int, default=0, help="of the drawing (default: 0)")


def _init(arguments: argparse.Namespace) -> int:
    from pipelines.config.first_config import first_config, write_first_config

    folders = {"trusted": arguments.trust, "images": arguments.folders, "holdout": arguments.holdout}
    text = first_config(arguments.name, folders)
    write_first_config(arguments.out, text)
    lines = [*text.splitlines(), "", f"next: lvd plan {arguments.out}, then lvd run {arguments.out}"]
    show(arguments, {"config": arguments.out}, lines)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from pipelines.cli.training import pretrain_after
    from pipelines.config.run_config import load_config, require_vector_files
    from pipelines.run import EMPTY, run

    flags = {"kind": arguments.executor, "address": arguments.address, "workers": arguments.workers}
    overrides = [f"executor.{name}={value}" for name, value in flags.items() if value is not None]
    config = load_config(arguments.config, arguments.overrides + overrides)
    require_vector_files(config)
    _go_on_apart_on_ray(arguments, config.executor)
    result = run(config, until=arguments.until, refresh=arguments.refresh)
    if result.manifest is not None and not arguments.json:
        from pipelines.answers.status import summary_lines

        print_lines(summary_lines(config.run_dir, result.manifest))
    trained = {}
    if config.pretrain is not None and arguments.until is None and result.exit_code != EMPTY:
        again = config_arguments(arguments.config, arguments.overrides + overrides)
        trained = {"checkpoint": str(pretrain_after(config, again))}
    if arguments.json:
        stopped = {"stopped_after": arguments.until, "steps": [vars(state) for state in result.states]}
        found = stopped if result.manifest is None else result.manifest | trained
        print_json(found)
    elif trained:
        print_lines([f"checkpoint: {trained['checkpoint']}"])
    return result.exit_code


def _go_on_apart_on_ray(arguments: argparse.Namespace, executor: "ExecutorConfig") -> None:
    """Leave behind a process that tells how Ray ended this one, where this is a program of its own."""
    if executor.chosen == "ray" and arguments.is_program:
        from pipelines.engine.last_words import go_on_apart

        go_on_apart()


def _plan(arguments: argparse.Namespace) -> int:
    from pipelines.config.read import ALL_FOLDERS, read_config

    if Path(arguments.config).is_dir():  # of a training that has begun
        return _plan_training(arguments)
    _, data = read_config(arguments.config, arguments.overrides, folders=ALL_FOLDERS)
    if "pools" not in data:  # nor of a curation is a chain
        return _plan_training(arguments)
    from pipelines.config.run_config import load_config, require_vector_files
    from pipelines.plan.answer import PlanQuestion, images_of, make_plan
    from pipelines.plan.words import plan_data, plan_report

    config = load_config(arguments.config, arguments.overrides)
    if config.pretrain is None and (arguments.memory or arguments.deadline or arguments.measure):
        raise ConfigError(
            f"--memory, --deadline and --measure are for a training, and {arguments.config} has none",
            expected="a section pretrain, or the config of a training",
        )
    asked = PlanQuestion(
        images=images_of(arguments.images),
        like=arguments.like,
        rates=arguments.rates,
        workers=arguments.workers,
        nodes=arguments.nodes,
        gpus=arguments.gpus or 1,
        measure=not arguments.no_probe,
    )
    if asked.images is None:
        require_vector_files(config)
    plan = make_plan(config, asked)
    found, lines = plan_data(plan), plan_report(plan, explain=arguments.explain)
    if config.pretrain is not None:
        from pipelines.cli.planning import plan_section

        training, told = plan_section(config, arguments)
        found, lines = {**found, "training": training}, [*lines, "", *told]
    show(arguments, found, lines)
    return 0


def _plan_training(arguments: argparse.Namespace) -> int:
    from pipelines.cli.planning import plan_config

    found, lines = plan_config(arguments)
    show(arguments, found, lines)
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from pipelines.config.run_config import ExecutorConfig
    from pipelines.demo.command import demo

    _go_on_apart_on_ray(arguments, ExecutorConfig(kind=arguments.executor))
    return demo(arguments.out, seed=arguments.seed, executor=arguments.executor, as_json=arguments.json)
