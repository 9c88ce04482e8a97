"""The devices that `--devices` names, and what gives a run one of them alone."""

import contextlib
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from vgg_jax.errors import ConfigError

_PATIENCE = 120  # seconds for JAX to start
_SEEN = "import jax; print(jax.default_backend(), jax.local_device_count())"
# Platform -> the variable by which its driver shows a process some devices only.
_VISIBLE = {"gpu": "CUDA_VISIBLE_DEVICES", "tpu": "TPU_VISIBLE_CHIPS"}
_NO_PEERS = {"TPU_PROCESS_BOUNDS": "1,1,1", "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1"}


class Device(NamedTuple):
    """Where a run goes; by default, to whatever there is.

    Attributes:
        core: the processor's core that the run is tied to, as Linux counts them.
        variables: environment variables of the run.
    """

    core: int | None = None
    variables: Mapping[str, str] = {}


def chosen(option: str) -> list[Device]:
    """Returns the devices of `--devices=0,1` or `--devices=cpu0,cpu1`.

    A number counts the GPUs or TPU chips that this process may use, from 0: with
    CUDA_VISIBLE_DEVICES=4,7 in the environment, 1 is number 7.

    Raises:
        ConfigError: a name is wrong or twice there; there is no such device here.

    >>> chosen("")
    []
    """
    if not option.strip():
        return []
    asked = f"--devices={option}"
    found = [_parsed(asked, name.strip()) for name in option.split(",")]
    (kind, number), times = Counter(found).most_common(1)[0]
    if times > 1:
        raise ConfigError(
            f"{asked}: {kind}{number} is there {times} times, and two runs on one "
            "device slow each other down or run out of memory: name it once"
        )
    if len({kind for kind, _ in found}) > 1:
        raise ConfigError(
            f"{asked}: cores and accelerators compute differently, and the runs of a "
            "sweep are compared: name devices of one kind"
        )
    numbers = [number for _, number in found]
    return _cores(asked, numbers) if kind else _accelerators(asked, numbers)


def _parsed(asked: str, name: str) -> tuple[str, int]:
    """Returns ("cpu", 3) for `cpu3` and ("", 3) for `3`."""
    match = re.fullmatch("(cpu)?([0-9]+)", name)
    if match is None:
        raise ConfigError(
            f"{asked}: {name!r} is no device: write the numbers of GPUs or TPU chips, "
            "0,1, or of the processor's cores, cpu0,cpu1"
        )
    return match[1] or "", int(match[2])


def _cores(asked: str, numbers: Sequence[int]) -> list[Device]:
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigError(f"{asked}: only Linux ties a run to a core; leave it out")
    there = os.sched_getaffinity(0)
    if not set(numbers) <= there:
        raise ConfigError(f"{asked}: the cores here are {_names('cpu', there)}")
    return [Device(number, {"JAX_PLATFORMS": "cpu"}) for number in numbers]


def _accelerators(asked: str, numbers: Sequence[int]) -> list[Device]:
    platform, count = seen() or ("", 0)
    if platform == "cpu":
        raise ConfigError(
            f"{asked}: JAX finds no GPU or TPU here, and the runs would share the "
            "processor: name its cores, cpu0,cpu1, or install JAX for the device"
        )
    variables = [_VISIBLE[platform]] if platform in _VISIBLE else _VISIBLE.values()
    for variable in variables if platform else ():
        listed = _listed(variable)
        count = min(count, len(listed)) if listed else count
        if max(numbers) >= count:
            said = f", with {variable}={os.environ[variable]}" if listed else ""
            raise ConfigError(
                f"{asked}: JAX finds {_names('', range(count))} here{said}"
            )
    return [
        Device(None, _NO_PEERS | {v: _entry(v, number) for v in variables})
        for number in numbers
    ]


def _listed(variable: str) -> list[str]:
    """Returns the devices that the environment's variable names; [] if it is unset."""
    text = os.environ.get(variable)
    return [] if text is None else [entry.strip() for entry in text.split(",")]


def _entry(variable: str, number: int) -> str:
    """Returns what the driver calls the device `number` of this process."""
    listed = _listed(variable)
    return listed[number] if number < len(listed) else str(number)


def _names(prefix, numbers):
    return ",".join(f"{prefix}{number}" for number in sorted(numbers))


def seen() -> tuple[str, int] | None:
    """Returns the platform that runs will use here, and the number of its devices.

    A process of its own asks JAX, as one that has asked keeps the devices' memory.
    None: it found no answer. On a TPU whose chips are two devices each, the number is
    that of the devices.
    """
    environ = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        asked = subprocess.run(
            [sys.executable, "-P", "-c", _SEEN],
            env=environ,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            start_new_session=True,  # a Ctrl-C ends it without a traceback
        )
        platform, count = asked.stdout.split()[-2:]
        return platform, int(count)
    except (subprocess.TimeoutExpired, ValueError):
        return None


@contextlib.contextmanager
def tied(core: int | None) -> Iterator[None]:
    """Ties this thread, and what it starts, to a core; None leaves it as it is."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
