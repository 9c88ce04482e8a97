"""A setting of a config, and the runs that tried it, one per seed."""

import re
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from vgg_jax.runs.run_record import RunRecord
from vgg_jax.runs.workdir import OPERATIONAL, flatten

_FIELDS, _LETTERS = 3, 60  # of a title that names what differs, at most

_SEED = re.compile(r",?seed=\d+$")  # ends the names of a sweep's runs


class Setting(NamedTuple):
    """Runs whose configs differ in the seed alone.

    Attributes:
        title: what pages call it.
        records: its runs.
        fields: dotted name -> value as text, of what can change a result; no seed.
    """

    title: str
    records: list[RunRecord]
    fields: dict[str, str]

    @property
    def validation(self) -> list[float | None]:
        """Best top-1 accuracy on the validation split of each run, in [0, 1]."""
        return [max(r.column("val_accuracy")[1], default=None) for r in self.records]

    @property
    def test(self) -> list[float | None]:
        """Top-1 accuracy on the test split of each run, in [0, 1]; None: not tested."""
        results = [record.result for record in self.records]
        return [r["test"]["accuracy"] if r else None for r in results]

    def mean(self, split: str) -> float | None:
        """Returns the mean of "validation" or "test"; None where a run has none."""
        values = getattr(self, split)
        return None if None in values else statistics.mean(values)


def spread(values: Sequence[float | None]) -> str:
    """Returns mean and standard deviation of shares, in per cent; "-" if one is None.

    >>> spread([0.5, 0.52]), spread([0.5]), spread([0.5, None])
    ('51.00 +- 1.41', '50.00', '-')
    """
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    text = f"{100 * statistics.mean(known):.2f}"
    if len(known) > 1:
        text += f" +- {100 * statistics.stdev(known):.2f}"
    return text


def ranking(settings: Sequence[Setting]) -> str:
    """Returns the split that ranks settings: validation wherever it can."""
    known = lambda split: sum(s.mean(split) is not None for s in settings)
    return "validation" if known("validation") >= known("test") else "test"


def settings(records: Sequence[RunRecord], names: Sequence[str]) -> list[Setting]:
    """Returns the settings of runs, best first; see `ranking`.

    Args:
        records: runs; those of one setting and one seed are told apart.
        names: of the runs, all different.
    """
    groups: dict[Any, list[int]] = {}
    fields = [_fields(record.config) for record in records]
    for i, field in enumerate(fields):
        groups.setdefault(tuple(field.items()), []).append(i)
    parts = [part for group in groups.values() for part in _split(group, records)]
    titles = _titles([[names[i] for i in part] for part in parts],
                     [fields[part[0]] for part in parts])  # fmt: skip
    unsorted = [
        Setting(title, [records[i] for i in part], fields[part[0]])
        for title, part in zip(titles, parts, strict=True)
    ]
    split = ranking(unsorted)
    value = lambda setting: setting.mean(split)
    return sorted(unsorted, key=lambda s: -1.0 if value(s) is None else value(s),
                  reverse=True)  # fmt: skip


def differing(fields: Sequence[dict[str, str]]) -> list[str]:
    """Returns the names of fields that are not the same in all."""
    every = dict.fromkeys(name for some in fields for name in some)
    return [name for name in every if len({some.get(name) for some in fields}) > 1]


def _fields(config: dict[str, Any]) -> dict[str, str]:
    operational = lambda name: any(
        name == left_out or name.startswith(f"{left_out}.") for left_out in OPERATIONAL
    )
    return {
        name: f"{value:.6g}" if isinstance(value, float) else str(value)
        for name, value in flatten(config).items()
        if name != "seed" and not operational(name)
    }


def _split(group: list[int], records: Sequence[RunRecord]) -> Iterator[list[int]]:
    seeds = {records[i].config["seed"] for i in group}
    if len(seeds) == len(group):
        yield group
    else:
        yield from ([i] for i in group)


def _titles(names: list[list[str]], fields: list[dict[str, str]]) -> list[str]:
    """Returns what differs where that is short and tells all apart, else names."""
    shown = differing(fields)
    titles = [", ".join(f"{f}={some.get(f, '-')}" for f in shown) for some in fields]
    short = 0 < len(shown) <= _FIELDS and max(map(len, titles)) <= _LETTERS
    if short and len(set(titles)) == len(titles):
        return titles
    stems = [{_SEED.sub("", name) for name in group} for group in names]
    joined = [" ".join(stem) for stem in stems]
    if max(map(len, stems)) == 1 and all(joined) and len(set(joined)) == len(names):
        return joined
    return [", ".join(group) for group in names]
