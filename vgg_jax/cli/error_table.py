"""Top-1 and top-5 errors in the layout of the paper's tables, and every prediction."""

import csv
import errno
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from vgg_jax.errors import RunError
from vgg_jax.evaluation.protocol import Result, Score
from vgg_jax.files import write_atomically
from vgg_jax.interop.network import Network
from vgg_jax.nn.softmax import most_probable

_NAMED = 10  # damaged pictures that are named
_BEST = 5  # classes per row of a CSV file


def show(
    names: Sequence[str],
    networks: Sequence[Network],
    result: Result,
    scales: Sequence[int],
) -> None:
    """Prints a row per network, and one for all together where there are several.

    Args:
        names: as the user calls the networks.
        networks: that were evaluated.
        result: of `protocol.evaluate`.
        scales: that were asked for; empty: the size of training.
    """
    sides = ", ".join(map(str, scales)) or str(networks[0].size or "training's")
    rows: list[tuple[str, str, Score]] = [
        (name, network.model.variant, score)
        for name, network, score in zip(names, networks, result.scores, strict=True)
    ]
    if len(networks) > 1:
        rows.append(("all together", "fusion", result.fusion))
    wide = max(len("ConvNet"), *(len(name) for name, _, _ in rows))
    across = max(len("smallest side (Q)"), len(sides))
    config = "config."
    print(
        f"{'ConvNet':{wide}}  {config}  {'smallest side (Q)':{across}}  top-1 error %  "
        "top-5 error %"
    )
    for name, variant, score in rows:
        shown = variant if len(variant) <= len(config) else "own"
        print(
            f"{name:{wide}}  {shown:{len(config)}}  {sides:{across}}  "
            f"{100 * score.top1:>13.2f}  {100 * score.top5:>13.2f}"
        )


def tell(result: Result, name: Callable[[int], str]) -> None:
    """Prints what the errors do not say: damaged pictures, cut ones, programs.

    Args:
        result: of `protocol.evaluate`.
        name: from the number of a picture to what it is called.
    """
    if result.damaged:
        print(f"{len(result.damaged):,} damaged pictures count as errors:")
        for number, why in [*result.damaged.items()][:_NAMED]:
            print(f"  {name(number)}: {why}")
        if len(result.damaged) > _NAMED:
            print(f"  and {len(result.damaged) - _NAMED:,} more")
    if result.cut:
        named = ", ".join(map(name, result.cut[:_NAMED]))
        print(
            f"{len(result.cut):,} pictures are longer than 8:1, and their centre was "
            f"seen: {named}{', ...' if len(result.cut) > _NAMED else ''}"
        )
    print(f"{result.programs} programs compiled, at most two per network and shape")


def write(
    file: Path, result: Result, name: Callable[[int], str], classes: Sequence[str]
) -> None:
    """Writes a row per picture: its name, its class, the five most probable classes.

    Args:
        file: a new one.
        result: of `protocol.evaluate`; the fusion's posteriors are written.
        name: from the number of a picture to what it is called.
        classes: names of the classes.

    Raises:
        RunError: it exists by now, or cannot be written.
    """
    count = min(_BEST, len(classes))
    heads = [(f"class_{i}", f"posterior_{i}") for i in range(1, count + 1)]
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator=os.linesep)
    rows.writerow(["picture", "label", *sum(heads, ())])
    for number, label in enumerate(result.labels):
        said = "damaged" if number in result.damaged else classes[label]
        best = most_probable(result.fusion.posteriors[number], count)
        pairs = ((classes[k], f"{p:.6f}") for k, p in best)
        rows.writerow([name(number), said, *sum(pairs, ())])
    try:
        if file.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        # Names of files need not be UTF-8.
        write_atomically(file, text.getvalue().encode(errors="surrogateescape"))
    except OSError as error:
        raise RunError(f"--csv={file} cannot be written: {error.strerror}") from error
