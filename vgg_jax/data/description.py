"""What a run is trained on, in a few values: a changed data set shows."""

from collections.abc import Sequence
from typing import Any

from vgg_jax.data.datasets import Dataset
from vgg_jax.nn.preprocessing import Statistics

ROLES = ("train", "validation", "test")


def description(
    dataset: Dataset,
    statistics: Statistics | None = None,
    components: Sequence[Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Returns what identifies a data set as split, as JSON values.

    The same for a set in memory and one that is streamed.

    Args:
        dataset: as `datasets.load` returns it.
        statistics: mean and standard deviation of each channel, where they were
            computed from the data set (`Augment.measured`).
        components: of the colours, where they are shifted (`Augment.components`).

    Returns:
        For each split "count", its number of examples, and "sha256" of which they are
        (`splits.digest`), or None where nothing is held out; "classes", their names;
        "statistics", "mean" and "std" in units of [0, 1], or None; and "components",
        rows in grey levels, where they are given.

    >>> from vgg_jax.data import datasets
    >>> described = description(datasets.load("cifar10_sample", validation="none"))
    >>> described["train"]["count"], described["validation"], described["classes"][0]
    (4000, None, 'airplane')
    """
    splits = {role: getattr(dataset, role) for role in ROLES}
    return {
        **{
            role: None
            if split is None
            else {"count": len(split), "sha256": dataset.digests.get(role)}
            for role, split in splits.items()
        },
        "classes": list(dataset.classes),
        "statistics": statistics
        and {
            key: list(row) for key, row in zip(("mean", "std"), statistics, strict=True)
        },
        **({"components": [list(row) for row in components]} if components else {}),
    }
