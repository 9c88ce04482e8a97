"""Frameworks at work, each in a process of its own, in its own environment."""

import collections
import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

_HERE = Path(__file__).parent
_ENVIRONMENTS = _HERE / "envs"


@dataclasses.dataclass(frozen=True)
class Peer:
    """A framework, or a way to use one.

    Attributes:
        program: file in `peers/`.
        environment: directory of `envs/` with the Python that runs it, named as the
            package that it is for; empty: this one.
        settings: added to the job.
        environ: environment variables that are set for it.
    """

    program: str
    environment: str = ""
    settings: tuple[tuple[str, object], ...] = ()
    environ: tuple[tuple[str, str], ...] = ()

    def python(self) -> Path:
        """Returns the interpreter that runs the program."""
        own = _ENVIRONMENTS / self.environment / "bin" / "python"
        if self.environment and (own.exists() or not find_spec(self.environment)):
            return own
        return Path(sys.executable)


# What `backend.configure` does for us, done for the peers.
_ONEDNN = ("XLA_FLAGS", "--xla_cpu_experimental_onednn_custom_call=true")
MALLOC = (
    "GLIBC_TUNABLES",
    f"glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold={2**64 - 1}:"
    "glibc.malloc.arena_max=1",
)
# Several processes share an accelerator here: each takes what it needs.
_SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
_EAGER, _COMPILE = (("compile", False),), (("compile", True),)
_GRAPHS = (("compile", True), ("graphs", True))
OURS = "vgg_jax"
PEERS = {
    OURS: Peer("ours.py"),
    "flax": Peer("flax_linen.py"),
    "flax tuned": Peer("flax_linen.py", environ=(_ONEDNN, MALLOC)),
    "torch": Peer("pytorch.py", "torch", _EAGER),
    "torch tuned": Peer("pytorch.py", "torch", _EAGER, (MALLOC,)),
    "torch.compile": Peer("pytorch.py", "torch", _COMPILE),
    "torch.compile tuned": Peer("pytorch.py", "torch", _COMPILE, (MALLOC,)),
    "torch.compile graphs": Peer("pytorch.py", "torch", _GRAPHS),  # CUDA's
    "keras": Peer("keras_tensorflow.py", "keras", _EAGER),
    "keras tuned": Peer("keras_tensorflow.py", "keras", _EAGER, (MALLOC,)),
    "keras xla": Peer("keras_tensorflow.py", "keras", _COMPILE),
}
PEAK = Peer("peak.py")


class Process:
    """A peer at work on a job.

    Args:
        peer: what to run.
        job: what it works on.
        checkout: where its program and its `vgg_jax` are; this one by default.
        wait: whether to wait until it is ready; if not, `failure` does.
        shown: whether what it writes to stderr is shown; it is kept for `failure`.

    Attributes:
        facts: what it said when it was ready.
        seconds: seconds per step, one entry per round.
        peak_memory: the most bytes that it held, or its arrays on an accelerator did,
            known once it is closed; 0 where the system does not say.

    Raises:
        RuntimeError: it ended before it was ready; the message is its last line.
    """

    def __init__(
        self,
        peer: Peer,
        job: dict,
        checkout: Path = _HERE.parent,
        wait: bool = True,
        shown: bool = "VERBOSE" in os.environ,
    ):
        paths = [str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])]
        environ = {**_SHARED, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        environ.update(peer.environ)
        self._process = subprocess.Popen(
            [
                peer.python(),
                checkout / "benchmarks" / "peers" / peer.program,
                json.dumps({**job, **dict(peer.settings)}),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if shown else subprocess.PIPE,
            text=True,
            env=environ,
        )
        self.seconds: list[float] = []
        if wait and self.failure:
            raise RuntimeError(self.failure)

    @functools.cached_property
    def failure(self) -> str:
        """Why it ended before it was ready, its last line; empty: it is ready."""
        try:
            self.facts = self._answer()
        except RuntimeError as error:
            return str(error)
        return ""

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            errors = self._process.communicate()[1] or "(see above)"
            raise RuntimeError(errors.strip().splitlines()[-1])
        answer = json.loads(line)
        self._on_device = answer.pop("device_memory", 0)
        return answer

    def ask(self, steps: int) -> float:
        """Has it run `steps` steps; returns the seconds per step."""
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return self._answer()["seconds"] / steps

    def go_on(self, seconds: float) -> bool:
        """Lets it work for so long, then stops it; returns whether it ended."""
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGSTOP)
        return self._process.returncode is not None

    def close(self):
        """Ends the process."""
        self.peak_memory = self._on_device or _peak_memory(self._process.pid)
        self._process.stdin.close()
        self._process.wait()


def _peak_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # not on Linux
        return 0
    return next((1024 * int(x.split()[1]) for x in lines if x.startswith("VmHWM")), 0)


def in_turns(
    started: dict[str, Callable[[], Process]], seconds: float
) -> tuple[dict[str, Process], dict[str, float]]:
    """Has processes work to their end, one at a time, in turns of so many seconds.

    Whatever else slows the machine down meets all of them.

    Args:
        started: starts each of them, by name; called when its first turn comes.
        seconds: how long a turn is.

    Returns:
        The processes, whose `facts` are what they said, and the seconds each worked.
    """
    processes: dict[str, Process] = {}
    worked = dict.fromkeys(started, 0.0)
    waiting = collections.deque(started)
    while waiting:
        name = waiting.popleft()
        start = time.perf_counter()
        if name not in processes:
            processes[name] = started[name]()
        ended = processes[name].go_on(seconds)
        worked[name] += time.perf_counter() - start
        if not ended:
            waiting.append(name)
    return processes, worked
