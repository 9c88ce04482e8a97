"""Checkpoints: what is damage and what is not, and what is on the disk when."""

import contextlib
import json
import os
import resource
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import struct

from vgg_jax import files
from vgg_jax.errors import RunError
from vgg_jax.runs import checkpoint_record, manifest
from vgg_jax.runs.checkpoint import Checkpoints
from vgg_jax.runs.checkpoint_record import Damaged
from vgg_jax.training import opening


class State(struct.PyTreeNode):
    params: Any
    step: Any
    epochs: Any
    opt_state: Any = ()
    ema: Any = struct.field(default_factory=dict)
    batch_stats: Any = struct.field(default_factory=dict)


def state(epoch):
    return State(
        params={"fc8": {"kernel": np.full((40, 30), epoch, np.float32)}},
        step=np.int32(2 * epoch),
        epochs=np.int32(epoch),
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Checkpoints 3, 6 and 9, after epochs 1, 2 and 3; the first is the best."""
    workdir = tmp_path_factory.mktemp("kept")
    checkpoints = Checkpoints(workdir / "checkpoints", facts={"config": {"lr": 0.1}})
    for epoch, accuracy in ((1, 0.9), (2, 0.5), (3, 0.6)):
        checkpoints.save(state(epoch), {"accuracy": accuracy, "loss": 1.0})
    checkpoints.close()
    return workdir


def copied(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "run")
    return tmp_path / "run", Checkpoints(tmp_path / "run" / "checkpoints")


def contents(directory):
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def too_many_files():
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limit[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def test_an_error_of_the_machine_is_no_damage(kept, tmp_path):
    run, checkpoints = copied(kept, tmp_path)
    before = contents(run)
    mend = too_many_files()
    try:
        with pytest.raises((RunError, OSError), match="Too many open files"):
            checkpoints.restore_latest(state(0))
    finally:
        mend()
    assert contents(run) == before
    assert int(checkpoints.restore_latest(state(0)).epochs) == 3
    checkpoints.close()


def test_a_state_of_another_structure_is_no_damage(kept, tmp_path):
    """As after an upgrade of Optax: one more leaf in the optimiser's state."""
    run, checkpoints = copied(kept, tmp_path)
    before = contents(run)
    more = state(0).replace(opt_state={"count": np.zeros((), np.int32)})
    with pytest.raises(RunError, match="checkpoint 9 .* whole but cannot be read here"):
        checkpoints.restore_latest(more)
    assert contents(run) == before
    checkpoints.close()


DAMAGE = {
    "flip": lambda path: path.write_bytes(
        bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]
    ),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "remove": Path.unlink,
}


@pytest.mark.parametrize("way", DAMAGE)
def test_damage_of_any_listed_file_is_told_and_set_aside(way, kept, tmp_path):
    listed = json.loads((kept / "checkpoints" / "9" / manifest.FILE).read_text())
    for name in listed["files"]:
        run, checkpoints = copied(kept, tmp_path)
        DAMAGE[way](run / "checkpoints" / "9" / name)
        said = []
        restored = checkpoints.restore_latest(state(0), said.append)
        assert int(restored.epochs) == 2, name
        assert f"checkpoint 9: {name}" in said[0] and "Going on from 6" in said[0]
        assert [p.name for p in (run / "damaged").iterdir()] == ["9-0"]
        checkpoints.close()
        shutil.rmtree(run)


@pytest.mark.parametrize("name", ["record/metadata", "manifest.json"])
def test_the_best_is_not_chosen_by_damaged_metrics(name, kept, tmp_path):
    """Without its metrics, checkpoint 3 would silently not be the best any more."""
    run, checkpoints = copied(kept, tmp_path)
    file = run / "checkpoints" / "3" / name
    file.write_text(file.read_text().replace("0.9", "0.1").replace("1", "2"))
    said = []
    assert int(checkpoints.restore_best(state(0), said.append).epochs) == 3
    assert "checkpoint 3" in said[0] and (run / "damaged" / "3-0").exists()
    checkpoints.close()


def test_damaged_metrics_choose_nothing_where_nothing_may_be_moved(kept, tmp_path):
    """As `score` does, which leaves the run as it is."""
    run, checkpoints = copied(kept, tmp_path)
    (run / "checkpoints" / "6" / "record" / "metadata").write_text("{}")
    with pytest.raises(Damaged, match="checkpoint 6: record/metadata has 2 bytes"):
        checkpoints.best()
    assert (run / "checkpoints" / "6").exists()
    checkpoints.close()


def test_a_checkpoint_that_is_removed_is_never_there_in_part(
    kept, tmp_path, monkeypatch
):
    """It has another name first: a kill in between looked like a damaged one."""
    run, checkpoints = copied(kept, tmp_path)

    def killed(path, **_):
        raise OSError(5, "as if the process ended here")

    with monkeypatch.context() as patch:
        patch.setattr("vgg_jax.runs.checkpoint.shutil.rmtree", killed)
        checkpoints.save(state(4), {"accuracy": 0.5, "loss": 1.0})
        checkpoints.close()
    left = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert left == ["12", "3", "6.removed", "9"]
    again = Checkpoints(run / "checkpoints")
    assert again.best() == 3 and not (run / "checkpoints" / "6.removed").exists()
    again.close()


def test_a_loss_that_is_not_a_number_is_never_the_best(tmp_path):
    """It was the best for ever once the checkpoints were opened again."""
    losses = {1: 0.5, 2: float("nan"), 3: 0.4}
    for epoch, loss in losses.items():
        checkpoints = Checkpoints(tmp_path, monitor="loss")
        checkpoints.save(state(epoch), {"accuracy": 0.0, "loss": loss})
        assert checkpoints.best() == {1: 3, 2: 3, 3: 9}[epoch]
        checkpoints.close()


def test_a_failed_save_does_not_hide_what_ended_the_run(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(manifest, "write", lambda path: (_ for _ in ()).throw(full))
    with pytest.raises(KeyboardInterrupt):
        with contextlib.ExitStack() as stack:
            stack.push(partial(opening._close_checkpoints, checkpoints))
            checkpoints.save(state(1))
            raise KeyboardInterrupt
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    with pytest.raises(RunError, match="No space left on device; the last good one is"):
        checkpoints.close()


def test_a_record_says_where_it_comes_from(kept):
    record = checkpoint_record.read(kept / "checkpoints" / "9")
    assert record.config == {"lr": 0.1}
    assert record.metrics == {"accuracy": 0.6, "loss": 1.0}


@pytest.mark.parametrize("text", ["", "{}", "\xff\x00", '{"accuracy": 1}'])
def test_torn_metrics_of_an_old_checkpoint_are_damage(text, tmp_path):
    """The files as version 0.1 wrote them; these were a traceback at every start."""
    (tmp_path / "4" / "crc").mkdir(parents=True)
    (tmp_path / "4" / "metrics").mkdir()
    (tmp_path / "4" / "crc" / "metadata").write_text('{"crc32": 1}')
    (tmp_path / "4" / "metrics" / "metrics").write_text(text)
    with pytest.raises(Damaged, match="checkpoint 4"):
        checkpoint_record.read(tmp_path / "4")
    Checkpoints(tmp_path).close()


def test_a_checkpoint_is_on_the_disk_before_an_older_one_goes(tmp_path, monkeypatch):
    """Every file and directory is synced, and the rows before them."""
    directory, rows = tmp_path / "checkpoints", tmp_path / "metrics.jsonl"
    rows.write_text("{}\n")
    synced, sync = [], os.fsync

    def noted(number):
        if (directory / "3").exists():
            synced.append(os.readlink(f"/proc/self/fd/{number}"))
        sync(number)

    monkeypatch.setattr(os, "fsync", noted)
    checkpoints = Checkpoints(directory, before=[rows])
    for epoch in (1, 2, 3):
        checkpoints.save(state(epoch))
        checkpoints.wait()
    checkpoints.close()
    assert sorted(p.name for p in directory.iterdir()) == ["6", "9"]
    assert {str(p) for p in (directory / "9").rglob("*")} <= set(synced)
    assert synced[-1] == str(directory)  # its entry, after the rename
    unfinished = next(i for i, path in enumerate(synced) if "/9.orbax" in path)
    assert synced[unfinished - 1] == str(rows)


def test_files_are_replaced_whole_and_stay(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda n: synced.append(os.fstat(n).st_ino))
    files.write_atomically(tmp_path / "result.json", "{}")
    inodes = [p.stat().st_ino for p in (tmp_path / "result.json", tmp_path)]
    assert synced == inodes
    (tmp_path / "x").mkdir()
    files.set_aside(tmp_path / "x", tmp_path / "damaged")
    (tmp_path / "x").write_text("kept")
    files.keep_copy(tmp_path / "x", tmp_path / "damaged")
    assert (tmp_path / "damaged" / "x-0").is_dir()
    assert (tmp_path / "damaged" / "x-1").read_text() == "kept"
    assert (tmp_path / "x").exists()
