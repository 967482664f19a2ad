"""What the commands of `lvd` take; the commands themselves are in `cli`."""

import argparse
from collections.abc import Callable
from typing import Any

from pipelines.command_parser import count_argument, path_argument
from pipelines.flow import FLOW

Command = Callable[[argparse.Namespace], int]


def add_run(commands: Any, *, command: Command) -> None:
    """`lvd run`."""
    run = commands.add_parser(
        "run",
        help="curate: from sources to shards, and on to a trained model",
        description="Curate what CONFIG describes and, where it has a section `pretrain`, train on the "
        "dataset as `lvd pretrain CONFIG` does. Stopped or killed, the same command goes on where it was. "
        "Exit codes: 0 done, 1 failed, 2 bad usage or config, 3 done but some source could not be read, "
        "4 done but the dataset is empty, "
        "130 stopped by Ctrl-C, 143 by SIGTERM.",
        epilog="example: lvd run curate.yaml --set pools.web.sources.0.path=/data/web --executor local",
    )
    add_config_arguments(run)
    run.add_argument("--executor", choices=("ray", "local"), help="where the work is done (executor.kind)")
    run.add_argument("--address", help="of a running Ray cluster, such as auto (executor.address)")
    run.add_argument("--workers", type=count_argument, help="at most so many workers (executor.workers)")
    run.add_argument("--until", choices=FLOW, metavar="STAGE", help=f"stop after a stage: {', '.join(FLOW)}")
    run.add_argument(
        "--refresh", action="store_true", help="list the sources anew and retry what could not be read"
    )
    run.add_argument("--json", action="store_true", help="print the manifest to stdout")
    run.set_defaults(command=command)


def add_plan(commands: Any, *, command: Command) -> None:
    """`lvd plan`."""
    plan = commands.add_parser(
        "plan",
        help="what would run, what is done already, and what the rest would cost",
        description="Show each step of CONFIG: its items, how many of them are done in the run directory, "
        "and for those to do the hours, bytes and memory. Rates come from the receipts of this run or of "
        "another one (--like), from a file (--rates), or from running the steps on a small sample, in a "
        "folder of its own. Nothing is written to the run directory.",
        epilog="example: lvd plan lvd142m.yaml --images 1.2e9 --nodes 20 --gpus 8 --rates v100.yaml",
    )
    add_config_arguments(plan)
    plan.add_argument(
        "--like", type=path_argument, metavar="RUN_DIR", help="take rates from the receipts of this run"
    )
    plan.add_argument(
        "--rates",
        type=path_argument,
        metavar="FILE",
        help="take rates of another kind of worker from this file",
    )
    plan.add_argument(
        "--images", action="append", default=[], metavar="[POOL=]N",
        help="plan for so many images, all to do: of a pool, or of all uncurated pools; may be given again",
    )  # fmt: skip
    plan.add_argument(
        "--workers", type=count_argument, metavar="N", help="workers like those of this machine"
    )
    plan.add_argument(
        "--nodes", type=count_argument, default=1, metavar="N", help="machines like this (default: 1)"
    )
    plan.add_argument(
        "--gpus", type=count_argument, default=1, metavar="N", help="of each, for --rates (default: 1)"
    )
    plan.add_argument("--no-probe", action="store_true", help="measure nothing: only tell how far it is")
    plan.add_argument("--explain", action="store_true", help="say how the cost of each step grows")
    plan.add_argument("--json", action="store_true", help="print JSON")
    plan.set_defaults(command=command)


def add_readers(commands: Any, *, status: Command, report: Command, explain: Command) -> None:
    """`lvd status`, `lvd report` and `lvd explain`."""
    of_status = commands.add_parser(
        "status", help="how far a run is", description="Show how far the run in RUN_DIR is, and who owns it."
    )
    of_status.set_defaults(command=status)
    of_report = commands.add_parser(
        "report",
        help="write the report of a run, or draw the curves of a training",
        description="Write the report page of a finished run anew; it is one self-contained HTML file. Of a "
        "training in RUN_DIR draw its curves: losses, k-NN, effective rank, gradients and rate.",
    )
    of_report.set_defaults(command=report)
    of_explain = commands.add_parser(
        "explain",
        help="the whole story of one image: what became of it, and why",
        description="Tell the whole story of an image in plain words: what was measured, what each stage "
        "decided and by which threshold, its copies, its cluster, who brought it in or how far it was from "
        "that, and where its bytes lie now.",
        epilog="example: lvd explain runs/dataset cats/0001.jpg --pool web",
    )
    of_explain.set_defaults(command=explain)
    for command in (of_status, of_report, of_explain):
        command.add_argument("run_dir", metavar="RUN_DIR")
        command.add_argument("--json", action="store_true", help="print JSON")
    of_explain.add_argument(
        "image", metavar="IMAGE", help="a key, POOL/KEY, a URL or path, an image id or its beginning"
    )
    of_explain.add_argument("--pool", help="look in this pool alone")


def add_search(commands: Any, *, command: Command) -> None:
    """`lvd search`."""
    search = commands.add_parser(
        "search",
        help="the images of a run that are nearest to one of them, or to a file",
        description="Find the images of a finished run that are nearest to one of them or to any picture, "
        "exactly: every image that has a vector takes part, kept or dropped.",
        epilog="example: lvd search runs/dataset --id 6be7ac42ed96 -k 20 --gallery nearest.html",
    )
    search.add_argument("run_dir", metavar="RUN_DIR")
    what = search.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--id",
        dest="image",
        metavar="ID",
        help="a key, POOL/KEY, a URL or path, or an image id or its beginning",
    )
    what.add_argument(
        "--image",
        dest="file",
        type=path_argument,
        metavar="FILE",
        help="a picture; the run's model embeds what it has not seen",
    )
    search.add_argument("-k", type=count_argument, default=10, metavar="K", help="how many (default: 10)")
    search.add_argument("--descriptor", action="store_true", help="by the copy descriptor: finds copies")
    search.add_argument("--pool", help="search in this pool alone")
    search.add_argument("--kept", action="store_true", help="search in the dataset alone")
    search.add_argument(
        "--gallery", type=path_argument, metavar="FILE.html", help="write the pictures as a page, too"
    )
    search.add_argument("--json", action="store_true", help="print JSON")
    search.set_defaults(command=command)


def add_dedup(commands: Any, *, command: Command) -> None:
    """`lvd dedup`."""
    dedup = commands.add_parser(
        "dedup",
        help="what another threshold would decide about copies",
        description="Decide again which images of the run in RUN_DIR are copies, from its saved edges: "
        "how many more or fewer would be dropped, which edges lie just above and just below the threshold, "
        "and which chains join images that are not alike. Nothing is run or written. Edges are saved from "
        "dedup.edge_floor on; a threshold below it is an error.",
        epilog="example: lvd dedup runs/dataset --threshold 0.93",
    )
    dedup.add_argument("run_dir", metavar="RUN_DIR")
    dedup.add_argument("--threshold", type=float, metavar="T", help="for dedup.cosine_threshold")
    dedup.add_argument("--phash-radius", type=int, metavar="R", help="for dedup.phash_radius")
    dedup.add_argument("--pca-radius", type=int, metavar="R", help="for dedup.pca_radius")
    dedup.add_argument("--json", action="store_true", help="print JSON")
    dedup.set_defaults(command=command)


def add_verify_and_clean(commands: Any, *, verify: Command, clean: Command) -> None:
    """`lvd verify` and `lvd clean`."""
    of_verify = commands.add_parser(
        "verify",
        help="check every hash, count and row of a finished dataset",
        description="Read everything that manifest.json lists and check hashes, counts and rows. Exit code 1 "
        "when something is wrong.",
    )
    of_verify.set_defaults(command=verify)
    of_clean = commands.add_parser(
        "clean",
        help="remove intermediate data",
        description="List what intermediate data of a run may go, and remove it with --yes. The dataset "
        "stays; a later run with the same config would compute the intermediate data again.",
    )
    of_clean.add_argument("--yes", action="store_true", help="remove it")
    of_clean.add_argument(
        "--keep-current", action="store_true", help="keep what the config in run.yaml still uses"
    )
    of_clean.set_defaults(command=clean)
    for command in (of_verify, of_clean):
        command.add_argument("run_dir", metavar="RUN_DIR")
        command.add_argument("--json", action="store_true", help="print JSON")


def add_demo(commands: Any, *, command: Command) -> None:
    """`lvd demo`."""
    demo = commands.add_parser(
        "demo",
        help="the whole thing, small: no arguments, no network, no GPU",
        description="Draw a small synthetic web with known truth, train a ViT on its trusted images, curate "
        "the web with it, train on the result, and print what was measured against the truth. It takes some "
        "minutes. Exit code 1 when copies or leaks are missed, or the training taught nothing.",
    )
    demo.add_argument(
        "--out", type=path_argument, default="runs/demo", metavar="DIR", help="where to (default: runs/demo)"
    )
    demo.add_argument("--executor", choices=("ray", "local"), default="ray", help="default: ray")
    demo.add_argument("--seed", type=int, default=0, help="of the drawing (default: 0)")
    demo.add_argument("--json", action="store_true", help="print JSON")
    demo.set_defaults(command=command)


def add_config_arguments(command: argparse.ArgumentParser) -> None:
    """The config of a run or a training, and what is set on top of it."""
    command.add_argument(
        "config", metavar="CONFIG", help="a YAML file, or the name of one that comes with lvd"
    )
    command.add_argument(
        "--set", dest="overrides", metavar="FIELD=VALUE", action="append", default=[],
        help="set a field, such as dedup.phash_radius=4; may be given again",
    )  # fmt: skip
