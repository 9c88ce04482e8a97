"""Runs a grid of settings and seeds, or a search, and compares the runs.

    python -m vgg_jax sweep --config=configs/vgg16.py --config.lr=0.01,0.03 --seeds=3
    python -m vgg_jax sweep --config=configs/vgg16.py --config.lr=0.003..0.1 \\
        --trials=20 --workdir=runs/search

Every `--config.<field>=a,b,c` is an axis of the grid; a single value is the same in all
runs. With `--trials=N` Optuna chooses N settings instead, by validation accuracy, from
such lists and from ranges `low..high`; `--prune` gives up those that lag.
`--devices=0,1` keeps that many runs going, each on its own GPU or TPU chip;
`--devices=cpu0,cpu1` on its own core, which small networks use better than all of them
use all cores (docs/results.md).

Several machines share a sweep: the same command on each, with a `--workdir` that all
see, or two of them on one machine; each takes the run that is next. What a machine had
under way that dies is given to another.

Each run has a workdir of its own in `--workdir` (default `runs/sweep-<config>`), so the
same command resumes where it was stopped and leaves finished runs alone. All settings
are checked before the first run. Ends with a table (mean and spread over the seeds,
best validation first), `sweep.json` and `comparison.html`. The runs read no test split;
those of the best setting do, at the end. So a sweep of several settings needs a
validation split.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from vgg_jax.cli import config_file, settings_check
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.files import write_atomically
from vgg_jax.runs import comparison, devices, launcher, report, sweep_grid
from vgg_jax.runs.run_record import REPORT
from vgg_jax.runs.setting import spread
from vgg_jax.runs.sweep import Sweep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    config_file.add_arguments(parser, required=True)
    parser.add_argument("--seeds", type=int, default=1, help="runs per setting")
    parser.add_argument(
        "--trials", type=int, default=0, help="number of settings Optuna chooses"
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="with --trials: give up runs below the median of the others",
    )
    parser.add_argument(
        "--storage",
        default="",
        help="of Optuna's study: a journal file, or a database (postgresql://...); "
        "default: optuna.log in --workdir",
    )
    parser.add_argument(
        "--devices", default="", help="0,1 or cpu0,cpu1: one run on each"
    )
    parser.add_argument(
        "--workdir", default="", help="directory of the runs' directories"
    )


def run(options: argparse.Namespace) -> None:
    """Runs the sweep, writes its files and prints its table.

    Raises:
        ConfigError: an option or a setting is wrong.
        RunError: a run failed; what it said is above. The others have run.
    """
    if options.seeds < 1 or options.trials < 0:
        raise ConfigError(
            f"--seeds={options.seeds} must be 1 or more, "
            f"--trials={options.trials} must be 0 or more"
        )
    if options.prune and not options.trials:
        raise ConfigError("--prune gives up trials of a search: it needs --trials=N")
    config = config_file.load(options.config)  # a missing one is told at once
    grid = sweep_grid.parse(options.settings)
    search = options.trials > 0
    chosen = devices.chosen(options.devices)
    environ = launcher.environment(chosen[0] if chosen else devices.Device())
    settings_check.check(options.config, grid, search=search, environment=environ)
    stem = f"sweep-{config_file.name(options.config)}"
    workdir = Path(options.workdir or Path("runs") / stem)
    if (workdir / "config.json").exists():
        raise ConfigError(
            f"--workdir={workdir} is the workdir of a run: give the sweep its own"
        )
    runs = launcher.Launcher(options.config, workdir, chosen)
    fields = json.loads(config.to_json_best_effort())
    sweep = Sweep(runs, grid, options.seeds, fields, options.storage)
    _sweep(sweep, options, workdir)


def _sweep(sweep: Sweep, options: argparse.Namespace, workdir: Path) -> None:
    if options.trials:
        settings = sweep.search(options.trials, options.config, options.prune)
    else:
        settings = sweep.run_all()
    if not settings:
        raise RunError("no setting has all its runs: see what they said")
    rows = sweep.ranked_and_tested(settings)
    write_atomically(workdir / "sweep.json", json.dumps(rows, indent=2) + "\n")
    names = dict.fromkeys(name for s in settings for name in sweep.names(s))
    for name in names:  # the page links to them
        if not (workdir / name / REPORT).exists():
            report.write(workdir / name)
    page = comparison.page([sweep.records[name] for name in names], workdir)
    write_atomically(workdir / comparison.FILE, page)
    _show(rows)
    print(workdir / comparison.FILE)
    if sweep.failed:
        raise RunError(
            f"these runs failed, and their settings are not in the table: "
            f"{', '.join(sweep.failed)}; the same command tries them again"
        )


def _show(rows: Sequence[dict]) -> None:
    width = max(len(row["setting"]) for row in rows)
    print(f"{'setting':{width}}  {'validation %':>15}  {'test %':>15}  seeds")
    for row in rows:
        cells = (f"{spread(row[key]):>15}" for key in ("validation", "test"))
        print(f"{row['setting']:{width}}  {'  '.join(cells)}  {len(row['validation'])}")
