"""The commands of `lvd` that look after a run directory: verify and clean."""

import argparse
from typing import Any

from pipelines.cli.shared_flags import show


def add_verify_and_clean(commands: Any) -> None:
    """`lvd verify` and `lvd clean`."""
    of_verify = commands.add_parser(
        "verify",
        help="check every hash, count and row of a finished dataset",
        description="Read everything that manifest.json lists and check hashes, counts and rows. Exit code 1 "
        "when something is wrong.",
    )
    of_verify.set_defaults(command=_verify)
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
    of_clean.set_defaults(command=_clean)
    for command in (of_verify, of_clean):
        command.add_argument("run_dir", metavar="RUN_DIR")
        command.add_argument("--json", action="store_true", help="print JSON")


def _verify(arguments: argparse.Namespace) -> int:
    from pipelines.answers.verify import verify

    faults = verify(arguments.run_dir)
    show(arguments, {"faults": faults}, faults or ["every hash, count and row is right"])
    return 1 if faults else 0


def _clean(arguments: argparse.Namespace) -> int:
    from pipelines.answers.clean import by_step, clean, find_leftovers
    from pipelines.words import size

    remove = clean if arguments.yes else find_leftovers
    folders = remove(arguments.run_dir, keep_current=arguments.keep_current)
    total = sum(folder.num_bytes for folder in folders)
    done = "removed" if arguments.yes else "may go (remove with --yes)"
    lines = [f"{size(num_bytes):>13}  {name}" for name, num_bytes in by_step(folders).items()]
    found = {"folders": [vars(folder) for folder in folders], "bytes": total, "removed": arguments.yes}
    show(arguments, found, [*lines, f"{size(total):>13}  in all {done}"])
    return 0
