"""Runs a grid of settings and seeds, one after another, and compares them.

    python -m vgg_jax.sweep --config=configs/vgg16.py --config.lr=0.01,0.03 --seeds=3

Every `--config.<field>=a,b,c` is an axis of the grid, one value a setting of all. Each
run has a workdir of its own in `--workdir` (default `runs/sweep-<config>`), so the same
command goes on where it was stopped and leaves finished runs alone. Ends with a table
(mean and spread over the seeds, best validation first), `sweep.json` and
`comparison.html`. Choose by the validation column; the test column is for the end.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vgg_jax import comparison, log
from vgg_jax.errors import ConfigError, RunError, guarded
from vgg_jax.record import Record

_MAIN = Path(__file__).resolve().parent.parent / "main.py"


def grid(settings: Sequence[str], seeds: int) -> list[dict[str, str]]:
    """One dictionary of fields a run.

    Args:
        settings: `--config.lr=0.01,0.03`; commas separate the values to try, except
            inside brackets: `--config.model.hidden=(64,64),(128,)`.
        seeds: 0 ... seeds - 1 are the innermost axis.

    Raises:
        ConfigError: not of that form, or the seed is set twice.
    """
    axes: dict[str, list[str]] = {}
    for setting in settings:
        field, equals, values = setting.removeprefix("--config.").partition("=")
        if not (setting.startswith("--config.") and field and equals):
            raise ConfigError(f"{setting!r}: write --config.<field>=<value>,<value>")
        if field == "seed":
            raise ConfigError("config.seed is the sweep's own axis: use --seeds=N")
        axes[field] = split(values)
    axes["seed"] = [str(seed) for seed in range(seeds)]
    return [
        dict(zip(axes, values, strict=True))
        for values in itertools.product(*axes.values())
    ]


def split(values: str) -> list[str]:
    """Parts between the commas that are outside brackets."""
    parts, depth = [""], 0
    for letter in values:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def name(fields: dict[str, str]) -> str:
    """Directory of a run: `lr=0.03,seed=1`."""
    return ",".join(f"{k}={v}" for k, v in fields.items()).replace("/", "_")


def table(records: dict[str, Record], runs: list[dict[str, str]]) -> list[dict]:
    """A row a setting, best mean validation accuracy first."""
    rows = {}
    for fields in runs:
        record = records[name(fields)]
        setting = ", ".join(f"{k}={v}" for k, v in fields.items() if k != "seed")
        row = rows.setdefault(setting or "as is", {"validation": [], "test": []})
        row["validation"].append(max(record.column("val_accuracy")[1], default=None))
        row["test"].append(record.result["test"]["accuracy"])
    found = [{"setting": setting, **values} for setting, values in rows.items()]
    by = "test" if None in found[0]["validation"] else "validation"
    return sorted(found, key=lambda row: -statistics.mean(row[by]))


def _spread(values):
    if None in values:
        return "-"
    text = f"{100 * statistics.mean(values):.2f}"
    if len(values) > 1:
        text += f" +- {100 * statistics.stdev(values):.2f}"
    return text


def main(arguments: Sequence[str]) -> None:
    """The command line.

    Raises:
        RunError: a run failed; what it said is above.
    """
    parser = argparse.ArgumentParser(
        "python -m vgg_jax.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="a file of configs/")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workdir", type=Path)
    options, settings = parser.parse_known_args(arguments)
    stem = Path(options.config.partition(":")[0]).stem
    workdir = options.workdir or Path("runs") / f"sweep-{stem}"
    runs = grid(settings, options.seeds)
    for i, fields in enumerate(runs, 1):
        print(f"run {i} of {len(runs)}: {name(fields)}", flush=True)
        flags = [f"--config.{field}={value}" for field, value in fields.items()]
        command = [sys.executable, _MAIN, f"--config={options.config}", *flags]
        done = subprocess.run([*command, f"--workdir={workdir / name(fields)}"])
        if done.returncode:
            raise RunError(
                f"run {name(fields)} ended with status {done.returncode}, see above; "
                "the same command goes on from here"
            )
    records = {name(f): Record(workdir / name(f)) for f in runs}
    rows = table(records, runs)
    log.write_atomically(workdir / "sweep.json", json.dumps(rows, indent=2) + "\n")
    page = workdir / "comparison.html"
    log.write_atomically(page, comparison.page(list(records.values())))
    width = max(len(row["setting"]) for row in rows)
    print(f"{'setting':{width}}  {'validation %':>15}  {'test %':>15}  seeds")
    for row in rows:
        cells = (f"{_spread(row[key]):>15}" for key in ("validation", "test"))
        print(f"{row['setting']:{width}}  {'  '.join(cells)}  {len(row['test'])}")
    print(page)


if __name__ == "__main__":
    guarded(main, sys.argv[1:])
