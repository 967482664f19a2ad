"""The `lvd` command."""

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

from curation.disk_errors import sentence_of
from curation.errors import ExecutorError, LvdError, is_no_memory
from curation.packages import distribution_of, is_of_ours
from pipelines.cli_flags import (
    add_config_arguments,
    add_dedup,
    add_demo,
    add_plan,
    add_readers,
    add_run,
    add_search,
    add_verify_and_clean,
)
from pipelines.cli_pretrain import add_evaluate, add_export, add_pretrain, config_arguments, pretrain_after
from pipelines.command_parser import CommandParser
from pipelines.output import print_error, print_json, print_lines
from pipelines.streams import Streams


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. A user's mistake is a paragraph on stderr, no traceback."""
    with Streams() as streams:
        try:
            return streams.exit_code(_main(argv))
        except SystemExit as ended:  # of argparse: help, or bad usage
            raise SystemExit(streams.exit_code(int(ended.code or 0))) from None


def _main(argv: Sequence[str] | None) -> int:
    arguments = build_parser().parse_args(argv)
    arguments.is_program = argv is None
    try:
        return _command(arguments)
    except LvdError as error:
        print_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        print_error("Stopped by Ctrl-C. Run the same command again: it goes on where it was.")
        return 130
    except ModuleNotFoundError as error:
        if is_of_ours(error):
            raise
        install = f"pip install {distribution_of(error)}, or lvd anew"
        print_error(f"A package is missing: {error}. On every machine: {install}.")
        return 2
    except OSError as error:
        print_error(sentence_of(error))
        return 1


def _command(arguments: argparse.Namespace) -> int:
    try:
        return int(arguments.command(arguments))
    except Exception as error:
        if not is_no_memory(error):
            raise
        raise ExecutorError(
            f"There is no memory left for `lvd {arguments.name}`",
            got=str(error) or type(error).__name__,
            remedy="Set describe.decode_threads or executor.workers lower, or let the process have more "
            "memory (ulimit -v), and run the same command again: it goes on where it was",
        ) from error


def build_parser() -> argparse.ArgumentParser:
    """The command line, with a help text for each command."""
    parser = CommandParser(
        prog="lvd",
        description="Builds image datasets as DINOv2's was built, says what became of every image, and "
        "trains DINOv2 on them.",
    )
    version = importlib.metadata.version("lvd")
    parser.add_argument("--version", action="version", version=f"lvd {version}")
    commands = parser.add_subparsers(dest="name", metavar="COMMAND", required=True)
    add_run(commands, command=_run)
    add_plan(commands, command=_plan)
    add_readers(commands, status=_status, report=_report, explain=_explain)
    add_search(commands, command=_search)
    add_dedup(commands, command=_dedup)
    add_verify_and_clean(commands, verify=_verify, clean=_clean)
    add_pretrain(commands, add_config_arguments=add_config_arguments)
    add_evaluate(commands)
    add_export(commands)
    add_demo(commands, command=_demo)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from pipelines.config import load_config, require_vector_files
    from pipelines.run import EMPTY, run

    flags = {"kind": arguments.executor, "address": arguments.address, "workers": arguments.workers}
    overrides = [f"executor.{name}={value}" for name, value in flags.items() if value is not None]
    config = load_config(arguments.config, arguments.overrides + overrides)
    require_vector_files(config)
    _go_on_apart_on_ray(arguments, config.executor.kind)
    result = run(config, until=arguments.until, refresh=arguments.refresh)
    if result.manifest is not None and not arguments.json:
        from pipelines.answers import summary_lines

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


def _go_on_apart_on_ray(arguments: argparse.Namespace, executor: str | None) -> None:
    """Leave behind a process that tells how Ray ended this one, where this is a program of its own."""
    if executor == "ray" and arguments.is_program:
        from pipelines.last_words import go_on_apart

        go_on_apart()


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

    _go_on_apart_on_ray(arguments, arguments.executor)
    return demo(arguments.out, seed=arguments.seed, executor=arguments.executor, as_json=arguments.json)


def _print(arguments: argparse.Namespace, data: object, lines: Sequence[str]) -> None:
    if arguments.json:
        print_json(data)
    else:
        print_lines(lines)


if __name__ == "__main__":
    sys.exit(main())
