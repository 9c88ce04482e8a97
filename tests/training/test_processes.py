"""Real processes on loopback train one network, and end together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.test_on_pictures import photos  # noqa: F401 (a fixture)
from vgg_jax import processes
from vgg_jax.errors import UserError
from vgg_jax.runs import checkpoint_record
from vgg_jax.training.interrupt import Stopped

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "epochs": 2,
    "batch_size": 32,
    "shards": 4,
    "data.train": "train[:256]",
    "data.test": "test[:150]",
    "model.variant": "conv3-8 | conv3-8 |",
    "model.dtype": "float32",
    "eval_batch_size": 77,
    "log.every_steps": 1,
}


@pytest.mark.parametrize(
    "where, number, index, message",
    [
        ("localhost", 2, 0, "--coordinator=localhost is no address"),
        ("here:99999", 2, 0, "ports are from 1 to 65535"),
        ("here:0", 2, 1, "ports are from 1 to 65535"),
        ("here:9", None, 0, "needs --num_processes and --process_id"),
        ("here:9", 2, 2, "--process_id=2 is none of 2 processes"),
        ("{taken}", 2, 0, "port .* cannot be used .*: name another one"),
    ],
)
def test_a_wrong_coordinator_is_told(where, number, index, message):
    """Before JAX starts."""
    with socket.create_server(("", 0)) as taken:
        where = where.format(taken=f"localhost:{taken.getsockname()[1]}")
        joined = processes.joined(where, number, index, lambda text: None)
        with pytest.raises(UserError, match=message), joined:
            pass


def free_port():
    with socket.socket() as free:
        free.bind(("", 0))
        return free.getsockname()[1]


def environment(devices=1):
    flags = f"--xla_force_host_platform_device_count={devices}"
    threads = {"NPROC": "4"}  # matrix products round by their number
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | threads


def command(workdir, fields):
    fields = TINY | fields
    return [
        *(sys.executable, "-u", "main.py", "--config=configs/quickstart.py"),
        *(f"--config.{name}={value}" for name, value in fields.items()),
        f"--workdir={workdir}",
    ]


def alone(workdir, devices=1, **fields):
    ran = subprocess.run(
        command(workdir, fields),
        cwd=ROOT,
        env=environment(devices),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


class Together:
    """Processes of one run, each with its own fields where they are said to differ."""

    def __init__(self, workdir, number=2, devices=1, differing=({}, {}), **fields):
        coordinator = f"127.0.0.1:{free_port()}"
        self.workdir = workdir
        self.processes = []
        for i in range(number):
            own = fields | (differing[i] if i < len(differing) else {})
            # The others need no workdir of the run.
            there = workdir if i == 0 else workdir.with_name(f"none{i}")
            several = [
                f"--coordinator={coordinator}",
                f"--num_processes={number}",
                f"--process_id={i}",
            ]
            self.processes.append(
                subprocess.Popen(
                    command(there, own) + several,
                    cwd=ROOT,
                    env=environment(devices),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def wait_for_steps(self, count=3):
        """Returns when so many are logged."""
        log, last = self.workdir / "metrics.jsonl", time.monotonic() + 120
        while not log.exists() or log.read_text().count('"kind": "step"') < count:
            assert time.monotonic() < last and self.processes[0].poll() is None
            time.sleep(0.05)

    def ended(self, timeout=120):
        """Returns exit codes, and the last line that each said on stderr."""
        said = [process.communicate(timeout=timeout) for process in self.processes]
        codes = [process.returncode for process in self.processes]
        return codes, [(err.strip().splitlines() or [""])[-1] for _, err in said]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()


def trained(workdir):
    """Returns the CRC-32 of the last state, and what was tested."""
    last = checkpoint_record.latest(workdir / "checkpoints")
    record = checkpoint_record.read(workdir / "checkpoints" / str(last))
    test = json.loads((workdir / "result.json").read_text())["test"]
    return record.crc32, test


@pytest.mark.slow
def test_two_processes_stop_together_and_one_goes_on(tmp_path):
    """A signal to the second stops both; a single process resumes to the same bits."""
    alone(tmp_path / "alone")
    with Together(tmp_path / "two") as two:
        two.wait_for_steps()
        two.processes[1].send_signal(signal.SIGTERM)
        codes, said = two.ended()
    assert codes == 2 * [128 + signal.SIGTERM]
    assert all(line.startswith(f"{Stopped.label}: after step") for line in said)
    assert not (tmp_path / "two/result.json").exists()
    assert not (tmp_path / "none1").exists()
    alone(tmp_path / "two")
    assert trained(tmp_path / "two") == trained(tmp_path / "alone")


@pytest.mark.slow
def test_another_config_ends_both(tmp_path):
    with Together(tmp_path / "two", differing=({}, {"lr": 0.1})) as two:
        codes, said = two.ended()
    assert codes == [1, 2]
    assert "the first process has another config (lr: 0.05 -> 0.1)" in said[1]
    assert "process 1" in said[0] and said[1].removeprefix("error: ") in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("number, devices", [(2, 1), (4, 1), (2, 2)])
@pytest.mark.parametrize("stream", [False, True])
def test_the_same_bits(tmp_path, number, devices, stream):
    fields = {"data.stream": stream}
    alone(tmp_path / "alone", **fields)
    with Together(tmp_path / "all", number, devices, **fields) as processes:
        codes, said = processes.ended()
    assert codes == number * [0], said
    assert trained(tmp_path / "all") == trained(tmp_path / "alone")


@pytest.mark.slow
def test_stopped_as_two_resumed_as_four(tmp_path):
    alone(tmp_path / "alone")
    with Together(tmp_path / "moved") as two:
        two.wait_for_steps(9)  # into the second epoch
        two.processes[0].send_signal(signal.SIGINT)
        assert two.ended()[0] == 2 * [128 + signal.SIGINT]
    with Together(tmp_path / "moved", 4) as four:
        codes, said = four.ended()
    assert codes == 4 * [0], said
    assert trained(tmp_path / "moved") == trained(tmp_path / "alone")


@pytest.mark.slow
def test_a_folder_that_each_decodes_its_share_of(photos, tmp_path):  # noqa: F811
    """In processes of its own; stopped as two, resumed as one; one file is damaged."""
    fields = {
        "data.name": f"folder:{photos}",
        "data.stream": True,
        "data.workers": 1,
        "data.train": "train[:80%]",
        "data.validation": "train[80%:90%]",
        "data.test": "train[90%:]",
        "augment.resize": 16,
        "augment.scales": "(20, 40)",
        "augment.crop": 0,
        "augment.crop_mode": "zero",
        "batch_size": 16,
    }
    alone(tmp_path / "alone", **fields)
    with Together(tmp_path / "moved", **fields) as two:
        two.wait_for_steps(4)  # of three per epoch
        two.processes[1].send_signal(signal.SIGTERM)
        assert two.ended()[0] == 2 * [128 + signal.SIGTERM]
    alone(tmp_path / "moved", **fields)
    assert trained(tmp_path / "moved") == trained(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("number, devices", [(2, 2), (2, 1)])
def test_groups_divide_dense_layers(tmp_path, number, devices):
    """Groups within a process, or across two; stopped, and resumed as one device."""
    fields = {"shards": 1, "model.head": "paper", "model.hidden": (64, 1024)}
    alone(tmp_path / "alone", **fields)
    groups = fields | {"mesh.model": 2}
    with Together(tmp_path / "moved", number, devices, **groups) as processes:
        processes.wait_for_steps(9)  # into the second epoch
        processes.processes[1].send_signal(signal.SIGTERM)
        assert processes.ended()[0] == number * [128 + signal.SIGTERM]
    alone(tmp_path / "moved", **fields)
    moved, one = (trained(tmp_path / run)[1] for run in ("moved", "alone"))
    assert moved["loss"] == pytest.approx(one["loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("test_with", ["best", "last"])
def test_without_shards(tmp_path, test_with):
    """Nothing is promised of its bits; it trains, tests and reports."""
    fields = {"shards": 1, "test_with": test_with}
    with Together(tmp_path / "two", **fields) as two:
        codes, said = two.ended()
    assert codes == [0, 0], said
    assert trained(tmp_path / "two")[1]["count"] == 150
    assert (tmp_path / "two/report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_the_run_goes_on(tmp_path, victim):
    """Within a minute (`processes.joined`), the last line saying who is gone."""
    fields = {"epochs": 40, "checkpoint.minutes": 0.01}
    with Together(tmp_path / "two", **fields) as two:
        two.wait_for_steps()
        two.processes[victim].kill()
        began = time.monotonic()
        codes, said = two.ended(timeout=60)
    assert time.monotonic() - began < 60
    assert codes[1 - victim] == 1
    gone = f"process {victim}"
    assert said[1 - victim].startswith(f"error: {gone}"), said
    assert "start all of them again" in said[1 - victim]
    alone(tmp_path / "two", **fields | {"checkpoint.minutes": 10.0})
    assert trained(tmp_path / "two")[1]["count"] == 150


@pytest.mark.slow
def test_a_hanging_process_ends_the_other(tmp_path):
    with Together(tmp_path / "two", epochs=200) as two:
        two.wait_for_steps()
        two.processes[1].send_signal(signal.SIGSTOP)
        two.processes[0].wait(60)
        two.processes[1].kill()
        codes, said = two.ended()
    assert codes[0] == 1
    assert "process 1 (" in said[0] and "no sign of life" in said[0]


@pytest.mark.slow
def test_what_only_one_process_lacks(tmp_path):
    """Its error is all processes' error."""
    lacking = {"data.name": "cifar10", "data.data_dir": str(tmp_path)}
    lacking["data.archive_dir"] = str(tmp_path / "nowhere")
    with Together(tmp_path / "two", differing=(lacking, lacking)) as two:
        codes, said = two.ended()
    assert 0 not in codes
    assert all("nowhere" in line for line in said), said


def printed(commands, environ):
    processes = [
        subprocess.Popen(c, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)
        for c in commands
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    return [json.loads(text.splitlines()[-1]) for text in said]


@pytest.mark.slow
@pytest.mark.parametrize("model", [1, 2])
def test_without_shards_only_rounding_differs(tmp_path, model):
    """Batch norm's sums cross processes; from JAX's cache they were mixed up.

    So do the activations of dense layers that the two processes divide.
    """
    fields = {"model.head": "paper", "model.hidden": "(64, 1024)"}
    divided = json.dumps(fields | {"mesh.model": model})
    environ = environment() | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    program = [sys.executable, Path(__file__).with_name("in_processes.py")]
    (alone,) = printed([[*program, "none", "1", "0", json.dumps(fields)]], environ)
    assert len(alone) == 40 and len(set(alone)) == 1
    for _ in ("compiled", "from the cache"):
        address = f"127.0.0.1:{free_port()}"
        together = [[*program, address, "2", index, divided] for index in "01"]
        assert printed(together, environ) == [alone, alone]


def test_a_state_spread_over_processes_is_for_accelerators(tmp_path):
    with Together(tmp_path / "two", **{"mesh.state": "zero1"}) as two:
        codes, said = two.ended()
    assert codes[0] == 2 and "mesh.state=zero1 in several processes" in said[0]
