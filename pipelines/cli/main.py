"""The `lvd` command."""

import argparse
import gc
import importlib.metadata
from collections.abc import Sequence

from curation.disk_errors import sentence_of
from curation.errors import ExecutorError, LvdError, is_no_memory
from curation.packages import distribution_of, is_of_ours
from pipelines.cli.answers import add_dedup, add_readers, add_search, add_verify_and_clean
from pipelines.cli.command_parser import CommandParser
from pipelines.cli.curating import add_demo, add_init, add_plan, add_run
from pipelines.cli.training import (
    add_adapt,
    add_chain,
    add_distill,
    add_evaluate,
    add_export,
    add_pretrain,
)
from pipelines.engine.output import print_error
from pipelines.engine.streams import Streams


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. A user's mistake is a paragraph on stderr, no traceback."""
    with Streams() as streams:
        try:
            return streams.exit_code(_main(argv))
        except SystemExit as ended:  # of argparse: help, or bad usage
            raise SystemExit(streams.exit_code(int(ended.code or 0))) from None
        finally:
            if argv is None:  # the process ends: to look through all that is there would take it 0.15 s
                gc.freeze()


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
    for add in (
        add_init, add_run, add_plan, add_readers, add_search, add_dedup, add_verify_and_clean, add_pretrain,
        add_adapt, add_distill, add_chain, add_evaluate, add_export, add_demo,
    ):  # fmt: skip
        add(commands)
    return parser
