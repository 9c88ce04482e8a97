"""Small runs for `benchmarks.faults`: started, stopped, started again and compared."""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = Path(tempfile.mkdtemp(prefix="vgg_jax-faults-"))  # what the runs print
STARTS = 3  # of the command after a fault
DAMAGING = ("damage", "power")  # families after which files may be damaged
SECONDS = 180  # after which a start counts as hung
SETTINGS = """epochs=3 batch_size=64 eval_batch_size=77 ema_decay=0.5 log.every_steps=1
data.name=cifar10_sample data.train=train[:300] data.validation=train[300:400]
data.test=test[:150] augment.crop=2 augment.flip=alternating model.batch_norm=True
model.hidden=(32,) model.dtype=float32 schedule.min_delta=10.0""".split()
SETTINGS += ["model.variant=conv3-8 | conv1-8 | conv3-8 |"]


@dataclasses.dataclass
class End:
    """How a start of the command ended.

    Attributes:
        status: exit status; negative for a signal, None if it hung.
        text: what it printed.
    """

    status: int | None
    text: str

    @property
    def problem(self) -> str:
        """What a user should not see; "" if nothing."""
        if self.status is None:
            return f"hangs for {SECONDS} s"
        if "Traceback" in self.text or "Error\n" in self.text:
            return "traceback"
        told = re.search(r"^(error|stopped): .{20,}", self.text, re.MULTILINE)
        if self.status > 0 and not told:
            return f"status {self.status} without a line"
        if self.status == 0 and "test top-1" not in self.text:
            return "ends without a result"
        return ""


def start(
    workdir: Path, prepare: Callable[[], None] = lambda: None, minutes: float = 10.0
) -> int:
    """Starts the training command in a child process; returns its number.

    The child is a fork of this process, which has imported everything and started
    nothing, so that a start takes a second or two.

    Args:
        workdir: of the run; what it prints is in `OUT`, by number.
        prepare: called in the child first.
        minutes: `checkpoint.minutes`.
    """
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        out = os.open(OUT / str(os.getpid()), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(out, number)
        prepare()
        from vgg_jax.cli import command

        options = [f"--config.{setting}" for setting in SETTINGS]
        options += [f"--config.checkpoint.minutes={minutes}", f"--workdir={workdir}"]
        config = f"--config={ROOT / 'configs' / 'vgg16.py'}"
        command.main(["train", config, *options])
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(code)


def end(child: int) -> End:
    """Waits for a start of the command."""
    status, deadline = None, time.monotonic() + SECONDS
    while status is None and time.monotonic() < deadline:
        done, code = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if done else None
        time.sleep(0.02)
    if status is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return End(status, (OUT / str(child)).read_text(errors="replace"))


def run(workdir: Path, prepare: Callable[[], None] = lambda: None) -> End:
    """Starts the command and waits for it."""
    return end(start(workdir, prepare))


def state(workdir: Path) -> tuple:
    """Returns what must not change: the last weights' sum, the test, the rows.

    Raises:
        AssertionError: files of the newest checkpoint are not those that were written.
    """
    from vgg_jax.runs import checkpoint_record, manifest, metric_log
    from vgg_jax.runs.run_record import RunRecord

    directory = workdir / "checkpoints"
    newest = directory / str(checkpoint_record.latest(directory))
    problem = manifest.damage(newest)
    assert not problem, problem
    rows = [
        {key: value for key, value in row.items() if "second" not in key}
        for row in metric_log.read(workdir)
    ]
    result = RunRecord(workdir).result or {}
    return checkpoint_record.read(newest).crc32, result["test"], rows


class Outcomes:
    """Counts what became of each fault, and keeps what went wrong.

    Args:
        reference: `state` of a run that nothing happened to.
        log: receives a line per fault.
    """

    KINDS = ("injected", "resumed", "bit-identical", "told", "bad")

    def __init__(self, reference: tuple, log: Path) -> None:
        self._reference, self._log = reference, log
        self.counts: dict[str, collections.Counter] = {}

    def judge(
        self, family: str, fault: str, workdir: Path, first: End | None = None
    ) -> None:
        """Starts the command again until the run is finished; judges it.

        Args:
            family: of the fault.
            fault: what was done.
            workdir: of the run.
            first: how the start ended that the fault hit, if one did.
        """
        count = self.counts.setdefault(family, collections.Counter())
        count["injected"] += 1
        ends = [first] if first else []
        problem = ""
        for _ in range(STARTS):
            ends.append(run(workdir))
            if ends[-1].status == 0:
                break
        problems = [e.problem for e in ends if e.problem]
        text = "\n".join(e.text for e in ends)
        if problems:
            problem = problems[0]
        elif ends[-1].status != 0:
            problem = "never finishes: " + ends[-1].text.strip()[-300:]
        else:
            problem = self._compare(workdir, text)
            if (
                not problem
                and family not in DAMAGING
                and (workdir / "damaged").exists()
            ):
                problem = "something was set aside, though nothing was damaged"
        count["resumed"] += ends[-1].status == 0
        count["told"] += any(e.status and e.status > 0 for e in ends)
        count["bit-identical"] += not problem
        count["bad"] += bool(problem)
        with self._log.open("a") as log:
            lines = [x for x in text.splitlines() if "error:" in x or "damage" in x]
            line = {"family": family, "fault": fault, "bad": problem, "lines": lines}
            line |= {"text": text} if problem else {}
            log.write(json.dumps(line) + "\n")
        if problem:
            print(f"BAD {family}: {fault}: {problem}", flush=True)

    def _compare(self, workdir: Path, text: str) -> str:
        crc, test, rows = self._reference
        try:
            got_crc, got_test, got_rows = state(workdir)
        except Exception as error:
            return f"cannot be read back: {error!r}"
        if got_crc != crc:
            return "other weights"
        if got_test != test:
            return "another result"
        if got_rows != rows and "metrics.jsonl: " not in text:
            return "other rows, silently"
        return ""


def at_call(count: int, act: Callable[[], None], under: Path) -> Callable[[], None]:
    """Returns a preparation: before the count-th call on files below `under`, act.

    Python tells of every open, rename, mkdir and removal ("audit events").
    """

    def prepare() -> None:
        left = itertools.count(count, -1)
        events = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")

        def hook(event: str, arguments: tuple) -> None:
            if event in events and str(arguments[0]).startswith(str(under)):
                if next(left) == 0:
                    (OUT / "hit").touch()
                    act()

        sys.addaudithook(hook)

    return prepare


@contextlib.contextmanager
def prepared() -> Iterator[tuple[Path, Path, tuple]]:
    """Yields a place for runs, a directory with a stopped and a finished one, and the
    state of the finished one."""
    import vgg_jax.training.loop  # noqa: F401, imports all that the children need

    with tempfile.TemporaryDirectory(prefix="vgg_jax-faults-") as directory:
        place, base = Path(directory, "runs"), Path(directory, "base")
        place.mkdir()
        base.mkdir()
        os.environ["XDG_CACHE_HOME"] = str(Path(directory, "cache"))
        # JAX cannot keep compiled programs with oneDNN: every start would compile.
        os.environ["XLA_FLAGS"] = "--xla_cpu_experimental_onednn_custom_call=false"
        finished = run(base / "finished")
        if finished.status != 0:
            sys.exit(f"a run that nothing happened to fails:\n{finished.text}")
        stop = lambda: os.kill(os.getpid(), signal.SIGTERM)
        stopped = base / "stopped"
        calls = itertools.count(60, 10)
        while not (stopped / "checkpoints" / "10").exists():
            shutil.rmtree(stopped, ignore_errors=True)
            run(stopped, at_call(next(calls), stop, stopped))
        yield place, base, state(base / "finished")
