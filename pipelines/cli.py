"""The `lvd` command."""

import argparse
import json
import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curation.errors import LvdError
from pipelines.cli_pretrain import add_evaluate, add_export, add_pretrain, config_arguments, pretrain_after
from pipelines.flow import FLOW


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. A user's mistake is a paragraph on stderr, no traceback."""
    arguments = build_parser().parse_args(argv)
    try:
        code = int(arguments.command(arguments))
        sys.stdout.flush()
        return code
    except LvdError as error:
        print(f"lvd: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("lvd: Stopped by Ctrl-C. Run the same command again: it goes on where it was.", file=sys.stderr)
        return 130
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 141
        where = f": {error.filename}" if error.filename else ""
        print(f"lvd: {error.strerror or error}{where}.", file=sys.stderr)
        return 1


def _nobody_reads() -> bool:
    """Whether stdout is a pipe without a reader, as in `lvd … | head`; if so it is turned away from there."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not poll.poll(0):
        return False
    # Python flushes once more as it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def build_parser() -> argparse.ArgumentParser:
    """The command line, with a help text for each command."""
    parser = argparse.ArgumentParser(
        prog="lvd",
        description="Builds image datasets as DINOv2's was built, says what became of every image, and "
        "trains DINOv2 on them.",
    )
    commands = parser.add_subparsers(dest="name", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_plan(commands)
    _add_readers(commands)
    _add_search(commands)
    _add_dedup(commands)
    _add_verify_and_clean(commands)
    add_pretrain(commands, add_config_arguments=_add_config_arguments)
    add_evaluate(commands)
    add_export(commands)
    _add_demo(commands)
    return parser


def _add_run(commands: Any) -> None:
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
    _add_config_arguments(run)
    run.add_argument("--executor", choices=("ray", "local"), help="where the work is done (executor.kind)")
    run.add_argument("--address", help="of a running Ray cluster, such as auto (executor.address)")
    run.add_argument("--workers", type=int, help="at most so many workers (executor.workers)")
    run.add_argument("--until", choices=FLOW, metavar="STAGE", help=f"stop after a stage: {', '.join(FLOW)}")
    run.add_argument(
        "--refresh", action="store_true", help="list the sources anew and retry what could not be read"
    )
    run.add_argument("--json", action="store_true", help="print the manifest to stdout")
    run.set_defaults(command=_run)


def _add_plan(commands: Any) -> None:
    plan = commands.add_parser(
        "plan",
        help="what would run, what is done already, and what the rest would cost",
        description="Show each step of CONFIG: its items, how many of them are done in the run directory, "
        "and for those to do the hours, bytes and memory. Rates come from the receipts of this run or of "
        "another one (--like), from a file (--rates), or from running the steps on a small sample, in a "
        "folder of its own. Nothing is written to the run directory.",
        epilog="example: lvd plan lvd142m.yaml --images 1.2e9 --nodes 20 --gpus 8 --rates v100.yaml",
    )
    _add_config_arguments(plan)
    plan.add_argument("--like", metavar="RUN_DIR", help="take rates from the receipts of this run")
    plan.add_argument("--rates", metavar="FILE", help="take rates of another kind of worker from this file")
    plan.add_argument(
        "--images", action="append", default=[], metavar="[POOL=]N",
        help="plan for so many images, all to do: of a pool, or of all uncurated pools; may be given again",
    )  # fmt: skip
    plan.add_argument("--workers", type=int, metavar="N", help="workers like those of this machine")
    plan.add_argument("--nodes", type=int, default=1, metavar="N", help="machines like this (default: 1)")
    plan.add_argument("--gpus", type=int, default=1, metavar="N", help="of each, for --rates (default: 1)")
    plan.add_argument("--no-probe", action="store_true", help="measure nothing: only tell how far it is")
    plan.add_argument("--explain", action="store_true", help="say how the cost of each step grows")
    plan.add_argument("--json", action="store_true", help="print JSON")
    plan.set_defaults(command=_plan)


def _add_readers(commands: Any) -> None:
    status = commands.add_parser(
        "status", help="how far a run is", description="Show how far the run in RUN_DIR is, and who owns it."
    )
    status.set_defaults(command=_status)
    report = commands.add_parser(
        "report",
        help="write the report of a run, or draw the curves of a training",
        description="Write the report page of a finished run anew; it is one self-contained HTML file. Of a "
        "training in RUN_DIR draw its curves: losses, k-NN, effective rank, gradients and rate.",
    )
    report.set_defaults(command=_report)
    explain = commands.add_parser(
        "explain",
        help="the whole story of one image: what became of it, and why",
        description="Tell the whole story of an image in plain words: what was measured, what each stage "
        "decided and by which threshold, its copies, its cluster, who brought it in or how far it was from "
        "that, and where its bytes lie now.",
        epilog="example: lvd explain runs/dataset cats/0001.jpg --pool web",
    )
    explain.set_defaults(command=_explain)
    for command in (status, report, explain):
        command.add_argument("run_dir", metavar="RUN_DIR")
        command.add_argument("--json", action="store_true", help="print JSON")
    explain.add_argument(
        "image", metavar="IMAGE", help="a key, POOL/KEY, a URL or path, an image id or its beginning"
    )
    explain.add_argument("--pool", help="look in this pool alone")


def _add_search(commands: Any) -> None:
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
        metavar="FILE",
        help="a picture; the run's model embeds what it has not seen",
    )
    search.add_argument("-k", type=int, default=10, metavar="K", help="how many (default: 10)")
    search.add_argument("--descriptor", action="store_true", help="by the copy descriptor: finds copies")
    search.add_argument("--pool", help="search in this pool alone")
    search.add_argument("--kept", action="store_true", help="search in the dataset alone")
    search.add_argument("--gallery", metavar="FILE.html", help="write the pictures as a page, too")
    search.add_argument("--json", action="store_true", help="print JSON")
    search.set_defaults(command=_search)


def _add_dedup(commands: Any) -> None:
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
    dedup.set_defaults(command=_dedup)


def _add_verify_and_clean(commands: Any) -> None:
    verify = commands.add_parser(
        "verify",
        help="check every hash, count and row of a finished dataset",
        description="Read everything that manifest.json lists and check hashes, counts and rows. Exit code 1 "
        "when something is wrong.",
    )
    verify.set_defaults(command=_verify)
    clean = commands.add_parser(
        "clean",
        help="remove intermediate data",
        description="List what intermediate data of a run may go, and remove it with --yes. The dataset "
        "stays; a later run with the same config would compute the intermediate data again.",
    )
    clean.add_argument("--yes", action="store_true", help="remove it")
    clean.add_argument(
        "--keep-current", action="store_true", help="keep what the config in run.yaml still uses"
    )
    clean.set_defaults(command=_clean)
    for command in (verify, clean):
        command.add_argument("run_dir", metavar="RUN_DIR")
        command.add_argument("--json", action="store_true", help="print JSON")


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="the whole thing, small: no arguments, no network, no GPU",
        description="Draw a small synthetic web with known truth, train a ViT on its trusted images, curate "
        "the web with it, train on the result, and print what was measured against the truth. It takes some "
        "minutes. Exit code 1 when copies or leaks are missed, or the training taught nothing.",
    )
    demo.add_argument("--out", default="runs/demo", metavar="DIR", help="where to (default: runs/demo)")
    demo.add_argument("--executor", choices=("ray", "local"), default="ray", help="default: ray")
    demo.add_argument("--seed", type=int, default=0, help="of the drawing (default: 0)")
    demo.add_argument("--json", action="store_true", help="print JSON")
    demo.set_defaults(command=_demo)


def _add_config_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "config", metavar="CONFIG", help="a YAML file, or the name of one that comes with lvd"
    )
    command.add_argument(
        "--set", dest="overrides", metavar="FIELD=VALUE", action="append", default=[],
        help="set a field, such as dedup.phash_radius=4; may be given again",
    )  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    from pipelines.config import load_config, require_vector_files
    from pipelines.run import EMPTY, run

    flags = {"kind": arguments.executor, "address": arguments.address, "workers": arguments.workers}
    overrides = [f"executor.{name}={value}" for name, value in flags.items() if value is not None]
    config = load_config(arguments.config, arguments.overrides + overrides)
    require_vector_files(config)
    result = run(config, until=arguments.until, refresh=arguments.refresh)
    if result.manifest is not None and not arguments.json:
        from pipelines.answers import summary

        print(summary(config.run_dir, result.manifest), flush=True)
    trained = {}
    if config.pretrain is not None and arguments.until is None and result.exit_code != EMPTY:
        again = config_arguments(arguments.config, arguments.overrides + overrides)
        trained = {"checkpoint": str(pretrain_after(config, again))}
    if arguments.json:
        stopped = {"stopped_after": arguments.until, "steps": [vars(state) for state in result.states]}
        found = stopped if result.manifest is None else result.manifest | trained
        print(json.dumps(found, ensure_ascii=False))
    elif trained:
        print(f"checkpoint: {trained['checkpoint']}")
    return result.exit_code


def _plan(arguments: argparse.Namespace) -> int:
    from pipelines.config import load_config, require_vector_files
    from pipelines.plan.answer import Asked, images_of, make_plan
    from pipelines.plan.words import plan_data, plan_report

    config = load_config(arguments.config, arguments.overrides)
    asked = Asked(
        images=images_of(arguments.images),
        like=arguments.like,
        rates=arguments.rates,
        workers=arguments.workers,
        nodes=arguments.nodes,
        gpus=arguments.gpus,
        measure=not arguments.no_probe,
    )
    if asked.images is None:
        require_vector_files(config)
    plan = make_plan(config, asked)
    _print(arguments, plan_data(plan), plan_report(plan, explain=arguments.explain))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from pipelines.answers import status, status_lines

    found = status(arguments.run_dir)
    _print(arguments, found, status_lines(found))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    if (Path(arguments.run_dir) / "metrics.jsonl").is_file():
        from pipelines.report.curves import write_curves

        path = write_curves(arguments.run_dir)
    else:
        from pipelines.report.write import rewrite_report

        path = rewrite_report(arguments.run_dir)
    _print(arguments, {"report": path}, [path])
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from pipelines.explain import explain
    from pipelines.explain_words import explain_lines

    found = explain(arguments.run_dir, arguments.image, pool=arguments.pool)
    _print(arguments, found, explain_lines(found))
    return 0


def _search(arguments: argparse.Namespace) -> int:
    from pipelines.search import Asked, search, search_data, search_lines

    asked = Asked(
        arguments.image,
        arguments.file,
        by="descriptors" if arguments.descriptor else "embeddings",
        k=arguments.k,
        pool=arguments.pool,
        kept=arguments.kept,
    )
    answer = search(arguments.run_dir, asked)
    if arguments.gallery is not None:
        from pipelines.report.gallery import write_gallery

        write_gallery(answer, arguments.gallery)
    _print(arguments, search_data(answer), search_lines(answer))
    return 0


def _dedup(arguments: argparse.Namespace) -> int:
    from pipelines.what_if import Asked, what_if, what_if_lines

    asked = Asked(arguments.threshold, arguments.phash_radius, arguments.pca_radius)
    found = what_if(arguments.run_dir, asked)
    _print(arguments, found, what_if_lines(found))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from pipelines.verify import verify

    faults = verify(arguments.run_dir)
    _print(arguments, {"faults": faults}, faults or ["every hash, count and row is right"])
    return 1 if faults else 0


def _clean(arguments: argparse.Namespace) -> int:
    from pipelines.clean import by_step, clean, find_leftovers
    from pipelines.report.words import size

    remove = clean if arguments.yes else find_leftovers
    folders = remove(arguments.run_dir, keep_current=arguments.keep_current)
    total = sum(folder.num_bytes for folder in folders)
    done = "removed" if arguments.yes else "may go (remove with --yes)"
    lines = [f"{size(num_bytes):>13}  {name}" for name, num_bytes in by_step(folders).items()]
    found = {"folders": [vars(folder) for folder in folders], "bytes": total, "removed": arguments.yes}
    _print(arguments, found, [*lines, f"{size(total):>13}  in all {done}"])
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from pipelines.demo.command import demo

    return demo(arguments.out, seed=arguments.seed, executor=arguments.executor, as_json=arguments.json)


def _print(arguments: argparse.Namespace, data: object, lines: Sequence[str]) -> None:
    print(json.dumps(data, ensure_ascii=False) if arguments.json else "\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
