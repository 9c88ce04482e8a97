"""The faults that `benchmarks.faults` injects, by family.

A family is a function of the outcomes that it adds to, the directory for its runs, the
one with a stopped and a finished run, and the share of its faults to inject, 0 ... 1.
"""

import contextlib
import errno
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.fault_runs import OUT, Outcomes, at_call, end, run, start


def _fail(number: int) -> Callable[[], None]:
    def act() -> None:
        raise OSError(number, os.strerror(number))

    return act


def kills(outcomes: Outcomes, place: Path, base: Path, share: float) -> None:
    """SIGKILL at random moments of a run that saves itself after every step."""
    random.seed(0)
    for i in range(round(60 * share)):
        workdir = place / f"kill{i}"
        child = start(workdir, minutes=1e-9)
        wait = random.uniform(0.5, 8)
        time.sleep(wait)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        outcomes.judge("kills", f"after {wait:.2f} s", workdir, end(child))
        shutil.rmtree(workdir, ignore_errors=True)


def _every_call(
    outcomes: Outcomes,
    place: Path,
    share: float,
    family: str,
    act: Callable[[], None],
    source: Path | None = None,
) -> None:
    """Acts before the n-th call on files of the run, n growing until none is left.

    Args:
        outcomes, place, share: as for a family.
        family: its name.
        act: what happens.
        source: the run begins as a copy of this one; None: it begins anew.
    """
    for i in range(0, 1000, round(1 / share)):
        (OUT / "hit").unlink(missing_ok=True)
        workdir = place / f"{family}{i}"
        if source:
            shutil.copytree(source, workdir)
        first = run(workdir, at_call(i, act, workdir))
        if (OUT / "hit").exists():
            outcomes.judge(family, f"before call {i}", workdir, first)
        shutil.rmtree(workdir, ignore_errors=True)
        if not (OUT / "hit").exists():
            break


def aimed(outcomes: Outcomes, place: Path, base: Path, share: float) -> None:
    """SIGKILL before every single call that opens, renames or removes a file."""
    act = lambda: os.kill(os.getpid(), signal.SIGKILL)
    _every_call(outcomes, place, share, "aimed", act)


def signals(outcomes: Outcomes, place: Path, base: Path, share: float) -> None:
    """SIGTERM, SIGINT and SIGHUP at random moments."""
    random.seed(1)
    kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for i in range(round(45 * share)):
        workdir = place / f"signal{i}"
        child = start(workdir, prepare=_hear)
        wait = random.uniform(1.5, 8)
        time.sleep(wait)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, kinds[i % 3])
        name = f"{kinds[i % 3].name} after {wait:.2f} s"
        first = end(child)
        if first.status is not None and first.status < 0:  # before it listened
            first = None
        outcomes.judge("signals", name, workdir, first)
        shutil.rmtree(workdir, ignore_errors=True)


def _hear() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def errors(outcomes: Outcomes, place: Path, base: Path, share: float) -> None:
    """A call on a file of the run fails: no space, too many open files, I/O error."""
    for name in ("ENOSPC", "EMFILE", "EIO"):
        act = _fail(getattr(errno, name))
        _every_call(outcomes, place, share / 3, f"error{name}", act)


def rereads(outcomes: Outcomes, place: Path, base: Path, share: float) -> None:
    """The same while a stopped run is read and goes on."""
    for name in ("EMFILE", "EIO"):
        act = _fail(getattr(errno, name))
        family = f"reread{name}"
        _every_call(outcomes, place, share / 3, family, act, base / "stopped")


def files_limit(outcomes: Outcomes, place: Path, base: Path, share: float) -> None:
    """A stopped run is resumed with too few files that may be open."""
    for limit in range(12, 60, max(1, round(3 / share))):
        workdir = place / f"files{limit}"
        shutil.copytree(base / "stopped", workdir)
        few = lambda n=limit: resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))
        outcomes.judge("files_limit", f"{limit} files", workdir, run(workdir, few))
        shutil.rmtree(workdir, ignore_errors=True)


def damage(outcomes: Outcomes, place: Path, base: Path, share: float) -> None:
    """Every file of a stopped and of a finished run: flipped, cut, emptied, removed."""
    random.seed(2)

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        if content:
            place = random.randrange(len(content))
            content[place] ^= 1 << random.randrange(8)
        path.write_bytes(content)

    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    ways = {
        "flip": flip,
        "flip again": flip,
        "cut": cut,
        "empty": lambda path: path.write_bytes(b""),
        "remove": Path.unlink,
        "garbage": lambda path: path.write_bytes(random.randbytes(100)),
    }
    for kind in ("stopped", "finished"):
        source = base / kind
        found = sorted(p for p in source.rglob("*") if p.is_file())
        cases = list(itertools.product(found, ways.items()))
        for path, (way, act) in random.sample(cases, round(len(cases) * share)):
            workdir = place / "run"
            shutil.copytree(source, workdir)
            act(workdir / path.relative_to(source))
            if path.name != "result.json":  # or nothing would be read again
                (workdir / "result.json").unlink(missing_ok=True)
            outcomes.judge(
                "damage", f"{kind}: {way} {path.relative_to(source)}", workdir
            )
            shutil.rmtree(workdir)


def paths(outcomes: Outcomes, place: Path, base: Path, share: float) -> None:
    """Workdirs with names that globs, shells, URLs and terminals take for something."""
    names = ["a b", "a%20b", "a#b", "a{b}", "a$b", "é", "a'b", 'a"b', "a;b", "a:b"]
    names += ["a*b", "a?b", "a&b", "~a", "a|b", "a]b", "-a", "a=b,c=d", "日本", "a..b"]
    names += ["a[1]", "a\\b", "a\nb", "a\x1b[31m", os.fsdecode(b"a\xff")]
    for name in names[:: round(1 / share)]:
        workdir = place / name / "run"
        workdir.parent.mkdir()
        (place / "safe").unlink(missing_ok=True)
        first = run(workdir)
        told = first.status == 2 and first.text.count("\n") == 1 and not first.problem
        if told:  # refused before any work; under another name it works
            (place / "safe").symlink_to(place / name)
            workdir = place / "safe" / "run"
        outcomes.judge("paths", repr(name), workdir, first)
        shutil.rmtree(place / name, ignore_errors=True)


def second(outcomes: Outcomes, place: Path, base: Path, share: float) -> None:
    """A second process, while the first trains; whatever is deleted under the first."""
    for i in range(round(12 * share) or 1):
        workdir = place / f"second{i}"
        child = start(workdir, minutes=1e-9)
        deadline = time.monotonic() + 60
        while not (workdir / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        if i % 2:
            (workdir / ".lock").unlink(missing_ok=True)
        other = run(workdir)
        first = end(child)
        finished = first.status == 0 and other.status in (0, 1)
        let_in = other.status == 0 and "is finished" not in other.text
        first.status = 0 if finished and not let_in else 99
        first.text = "test top-1" if first.status == 0 else other.text
        outcomes.judge("second", f"second process {i}", workdir, first)
        shutil.rmtree(workdir, ignore_errors=True)


def output(outcomes: Outcomes, place: Path, base: Path, share: float) -> None:
    """Standard output that is closed, full, or ASCII only."""

    def closed() -> None:
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, 1)

    def full() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

    def shut() -> None:
        os.close(1)

    def ascii_only() -> None:
        sys.stdout.reconfigure(encoding="ascii")

    for prepare in (closed, full, shut, ascii_only):
        workdir = place / prepare.__name__
        first = run(workdir, prepare)
        if first.status == 0:  # its result went nowhere
            first.text += "test top-1"
        outcomes.judge("output", prepare.__name__, workdir, first)
        shutil.rmtree(workdir)


def full_disk(outcomes: Outcomes, place: Path, base: Path, share: float) -> None:
    """A disk (tmpfs) that is full at some point of the run, and larger later."""
    for kilobytes in range(20, 900, round(20 / share)):
        disk = place / "disk"
        disk.mkdir()
        _do("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk))
        try:
            first = run(disk / "run")
            size = "remount,size=20m"
            _do("mount", "-o", size, str(disk))
            outcomes.judge("full_disk", f"{kilobytes} kB", disk / "run", first)
        finally:
            _do("umount", str(disk))
            disk.rmdir()


def power(outcomes: Outcomes, place: Path, base: Path, share: float) -> None:
    """The image of an ext4 disk, copied under a running program or after its end."""
    random.seed(3)
    image, disk = place / "disk.img", place / "disk"
    disk.mkdir()
    for i in range(round(60 * share)):
        with image.open("wb") as file:
            file.truncate(48 << 20)
        _do("mkfs.ext4", "-q", "-F", str(image))
        _do("mount", "-o", "loop,commit=1", str(image), str(disk))
        copy = place / "copy.img"
        after_end = i % 3 == 2
        wait = random.uniform(0, 8) if after_end else random.uniform(2, 8)
        try:
            child = start(disk / "run", minutes=1e-9 if i % 2 else 10.0)
            if after_end:
                end(child)
            time.sleep(wait)
            if not after_end:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGSTOP)
            shutil.copy(image, copy)
            if not after_end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        finally:
            _do("umount", str(disk))
        _do("mount", "-o", "loop", str(copy), str(disk))
        try:
            name = f"{wait:.2f} s after {'its end' if after_end else 'the start'}"
            outcomes.judge("power", name, disk / "run")
        finally:
            _do("umount", str(disk))


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


FAMILIES = {
    f.__name__: f
    for f in (
        kills,
        aimed,
        signals,
        errors,
        rereads,
        files_limit,
        damage,
        paths,
        second,
        output,
        full_disk,
        power,
    )
}
NEED_ROOT = ("full_disk", "power")
