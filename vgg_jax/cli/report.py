"""Makes the page of a run again, or one that compares several; it needs no network.

Every run ends with `<workdir>/report.html`. To make it again, also of an unfinished
run, or to compare runs:

    python -m vgg_jax report --workdir=runs/quickstart
    python -m vgg_jax report --workdir=runs/quickstart --workdir=runs/vgg16
"""

import argparse
from pathlib import Path

from vgg_jax.errors import RunError
from vgg_jax.files import check_target, write_atomically
from vgg_jax.runs import comparison, report
from vgg_jax.runs.run_record import REPORT, RunRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--workdir",
        type=Path,
        action="append",
        required=True,
        help="directory of a run; name several to compare them",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="file to write; default: in the first workdir, report.html or "
        "comparison.html",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what --out names"
    )


def run(options: argparse.Namespace) -> None:
    """Writes the page and prints its path.

    Raises:
        ConfigError: --out names a file that is there.
        RunError: a directory holds no run, or the page cannot be written.
    """
    if options.out:
        check_target(options.out, ".html", options.overwrite)
    records = [RunRecord(workdir) for workdir in options.workdir]
    name = comparison.FILE if len(records) > 1 else REPORT
    path = options.out or options.workdir[0] / name
    if len(records) > 1:
        text = comparison.page(records, path.parent)
    else:
        text = report.page(records[0], path.parent)
    try:
        write_atomically(path, text)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error}): give --out") from error
    print(path)
