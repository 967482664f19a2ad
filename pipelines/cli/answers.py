"""The commands of `lvd` about a run that is there: they answer, check and clear up, and change no dataset.

What a command needs is imported once it is given: a model, or pages of charts, take seconds that the others
do not.
"""

import argparse
from pathlib import Path
from typing import Any

from pipelines.cli.command_parser import count_argument, path_argument
from pipelines.cli.shared_flags import add_command, add_run_dir, show

_IMAGE = "a key, POOL/KEY, a URL or path, an image id or its beginning"


def add_readers(commands: Any) -> None:
    """`lvd status`, `lvd report` and `lvd explain`."""
    status = add_command(
        commands, "status", _status,
        does="how far a run is",
        text="Show how far the run in RUN_DIR is, and who owns it.",
    )  # fmt: skip
    report = add_command(
        commands, "report", _report,
        does="write the report of a run, or draw the curves of a training",
        text="Write the report page of a finished run anew; it is one self-contained HTML file. Of a "
        "training in RUN_DIR draw its curves: losses, k-NN, effective rank, gradients and rate.",
    )  # fmt: skip
    explain = add_command(
        commands, "explain", _explain,
        does="the whole story of one image: what became of it, and why",
        text="Tell the whole story of an image in plain words: what was measured, what each stage decided "
        "and by which threshold, its copies, its cluster, who brought it in or how far it was from that, and "
        "where its bytes lie now.",
        example="lvd explain runs/dataset cats/0001.jpg --pool web",
    )  # fmt: skip
    for command in (status, report, explain):
        add_run_dir(command)
    explain.add_argument("image", metavar="IMAGE", help=_IMAGE)
    explain.add_argument("--pool", help="look in this pool alone")


def add_search(commands: Any) -> None:
    """`lvd search`."""
    search = add_command(
        commands, "search", _search,
        does="the images of a run that are nearest to one of them, or to a file",
        text="Find the images of a finished run that are nearest to one of them or to any picture, exactly: "
        "every image that has a vector takes part, kept or dropped.",
        example="lvd search runs/dataset --id 6be7ac42ed96 -k 20 --gallery nearest.html",
    )  # fmt: skip
    add_run_dir(search)
    what = search.add_mutually_exclusive_group(required=True)
    what.add_argument("--id", dest="image", metavar="ID", help=_IMAGE)
    what.add_argument(
        "--image", dest="file", type=path_argument, metavar="FILE",
        help="a picture; the run's model embeds what it has not seen",
    )  # fmt: skip
    search.add_argument("-k", type=count_argument, default=10, metavar="K", help="how many (default: 10)")
    search.add_argument("--descriptor", action="store_true", help="by the copy descriptor: finds copies")
    search.add_argument("--pool", help="search in this pool alone")
    search.add_argument("--kept", action="store_true", help="search in the dataset alone")
    search.add_argument(
        "--gallery", type=path_argument, metavar="FILE.html", help="write the pictures as a page, too"
    )


def add_dedup(commands: Any) -> None:
    """`lvd dedup`."""
    dedup = add_command(
        commands, "dedup", _dedup,
        does="what another threshold would decide about copies",
        text="Decide again which images of the run in RUN_DIR are copies, from its saved edges: how many "
        "more or fewer would be dropped, which edges lie just above and just below the threshold, and which "
        "chains join images that are not alike. Nothing is run or written. Edges are saved from "
        "dedup.edge_floor on; a threshold below it is an error.",
        example="lvd dedup runs/dataset --threshold 0.93",
    )  # fmt: skip
    add_run_dir(dedup)
    dedup.add_argument("--threshold", type=float, metavar="T", help="for dedup.cosine_threshold")
    dedup.add_argument("--phash-radius", type=int, metavar="R", help="for dedup.phash_radius")
    dedup.add_argument("--pca-radius", type=int, metavar="R", help="for dedup.pca_radius")


def add_verify_and_clean(commands: Any) -> None:
    """`lvd verify` and `lvd clean`."""
    verify = add_command(
        commands, "verify", _verify,
        does="check every hash, count and row of a finished dataset",
        text="Read everything that manifest.json lists and check hashes, counts and rows. Exit code 1 when "
        "something is wrong.",
    )  # fmt: skip
    clean = add_command(
        commands, "clean", _clean,
        does="remove intermediate data, and datasets of earlier configs",
        text="List what of a run may go, intermediate data and datasets of earlier configs, and remove it "
        "with --yes. The dataset that manifest.json names stays; a later run with the same config would "
        "compute the intermediate data again.",
    )  # fmt: skip
    for command in (verify, clean):
        add_run_dir(command)
    clean.add_argument("--yes", action="store_true", help="remove it")
    clean.add_argument(
        "--keep-current", action="store_true", help="keep what the config in run.yaml still uses"
    )


def _status(arguments: argparse.Namespace) -> int:
    from pipelines.answers.status import status, status_lines

    found = status(arguments.run_dir)
    show(arguments, found, status_lines(found))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from pretrain.checkpoint_files import student_dirs

    trained = [Path(arguments.run_dir), *student_dirs(Path(arguments.run_dir))]
    if runs := [str(run_dir) for run_dir in trained if (run_dir / "metrics.jsonl").is_file()]:
        from pipelines.training.curves import write_curves

        paths = [write_curves(run_dir) for run_dir in runs]
        show(arguments, {"report": paths[0]} if len(paths) == 1 else {"reports": paths}, paths)
        return 0
    from pipelines.report.write import rewrite_report

    path = rewrite_report(arguments.run_dir)
    show(arguments, {"report": path}, [path])
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from pipelines.answers.explain import explain
    from pipelines.answers.explain_words import explain_lines

    found = explain(arguments.run_dir, arguments.image, pool=arguments.pool)
    show(arguments, found, explain_lines(found))
    return 0


def _search(arguments: argparse.Namespace) -> int:
    from pipelines.answers.nearest import NearestQuery, search, search_data, search_lines

    asked = NearestQuery(
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
    show(arguments, search_data(answer), search_lines(answer))
    return 0


def _dedup(arguments: argparse.Namespace) -> int:
    from pipelines.answers.what_if import Asked, what_if, what_if_lines

    asked = Asked(arguments.threshold, arguments.phash_radius, arguments.pca_radius)
    found = what_if(arguments.run_dir, asked)
    show(arguments, found, what_if_lines(found))
    return 0


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
    lines = []
    for name, num_bytes in by_step(folders).items():
        of_what = "  (a dataset of an earlier config)" if name.startswith("dataset-") else ""
        lines.append(f"{size(num_bytes):>13}  {name}{of_what}")
    found = {"folders": [vars(folder) for folder in folders], "bytes": total, "removed": arguments.yes}
    show(arguments, found, [*lines, f"{size(total):>13}  in all {done}"])
    return 0
