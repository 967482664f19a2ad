"""The commands of `lvd` that answer about a run, and write nothing into its dataset."""

import argparse
from pathlib import Path
from typing import Any

from pipelines.cli.command_parser import count_argument, path_argument
from pipelines.cli.shared_flags import show


def add_readers(commands: Any) -> None:
    """`lvd status`, `lvd report` and `lvd explain`."""
    of_status = commands.add_parser(
        "status", help="how far a run is", description="Show how far the run in RUN_DIR is, and who owns it."
    )
    of_status.set_defaults(command=_status)
    of_report = commands.add_parser(
        "report",
        help="write the report of a run, or draw the curves of a training",
        description="Write the report page of a finished run anew; it is one self-contained HTML file. Of a "
        "training in RUN_DIR draw its curves: losses, k-NN, effective rank, gradients and rate.",
    )
    of_report.set_defaults(command=_report)
    of_explain = commands.add_parser(
        "explain",
        help="the whole story of one image: what became of it, and why",
        description="Tell the whole story of an image in plain words: what was measured, what each stage "
        "decided and by which threshold, its copies, its cluster, who brought it in or how far it was from "
        "that, and where its bytes lie now.",
        epilog="example: lvd explain runs/dataset cats/0001.jpg --pool web",
    )
    of_explain.set_defaults(command=_explain)
    for command in (of_status, of_report, of_explain):
        command.add_argument("run_dir", metavar="RUN_DIR")
        command.add_argument("--json", action="store_true", help="print JSON")
    of_explain.add_argument(
        "image", metavar="IMAGE", help="a key, POOL/KEY, a URL or path, an image id or its beginning"
    )
    of_explain.add_argument("--pool", help="look in this pool alone")


def add_search(commands: Any) -> None:
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
    search.set_defaults(command=_search)


def add_dedup(commands: Any) -> None:
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
    dedup.set_defaults(command=_dedup)


def _status(arguments: argparse.Namespace) -> int:
    from pipelines.answers.status import status, status_lines

    found = status(arguments.run_dir)
    show(arguments, found, status_lines(found))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    if (Path(arguments.run_dir) / "metrics.jsonl").is_file():
        from pipelines.training.curves import write_curves

        path = write_curves(arguments.run_dir)
    else:
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
