"""How much memory this process may still take, and what malloc does with it."""

import ctypes
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import jax

_ROOT = Path("/")
_LET_GO = 0.01  # seconds after its results are there that XLA frees a step's memory
# M_MMAP_MAX, M_TRIM_THRESHOLD (-1: never give memory back), M_ARENA_MAX of glibc's
# malloc.h.
_MALLOPT = ((-4, 0), (-1, -1), (-8, 1))


def available(root: Path = _ROOT) -> int | None:
    """Returns the bytes of memory that can be had without swapping, or None.

    On Linux: `MemAvailable` of `/proc/meminfo`, or what the process's control groups
    (a container, a batch system) leave of their limits, whichever is least. Elsewhere
    the answer is None: unknown.

    Args:
        root: where `proc` and `sys` are mounted.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        (kilobytes,) = (x.split()[1] for x in lines if x.startswith("MemAvailable:"))
    except (OSError, ValueError):
        return None
    return min([1024 * int(kilobytes), *_left_by_groups(root)])


def _left_by_groups(root: Path) -> Iterator[int]:
    """Yields what each control group with a limit leaves of it.

    Cached files count as used in a group, and are given up first: what the kernel calls
    inactive is added.
    """
    for group in _groups(root):
        for limit_file, usage_file, cached in (
            ("memory.max", "memory.current", "inactive_file"),  # version 2
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            try:
                limit = int((group / limit_file).read_text())
                used = int((group / usage_file).read_text())
                rows = (group / "memory.stat").read_text().splitlines()
            except (OSError, ValueError):  # absent, or the limit is "max"
                continue
            statistics = dict(row.split() for row in rows)
            yield max(0, limit - used + int(statistics.get(cached, 0)))


def _groups(root: Path) -> Iterator[Path]:
    """Yields the directories of this process's memory groups and of their parents."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        inner = Path(path.lstrip("/"))
        yield from (mount / part for part in (inner, *inner.parents))


def keep_freed() -> None:
    """Lets each step reuse the memory of the last one without asking the kernel.

    By default glibc returns large buffers as soon as they are freed, and every step
    pays for page faults (`docs/results.md`: 566 ms with them, 511 without). A higher
    limit is not enough, as the buffers of a large step exceed it. There is one arena
    only, because the empty arena of a thread is unmapped too. Settings in the
    environment (GLIBC_TUNABLES, MALLOC_*) win; other C libraries are left alone.
    """
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    tuned = tuned or any(name.startswith("MALLOC_") for name in os.environ)
    if tuned or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in _MALLOPT:
        mallopt(parameter, value)


def is_short(root: Path = _ROOT) -> bool:
    """Returns whether less memory is to be had than this process holds.

    False where it is unknown, or JAX computes on something else than the CPU.

    Args:
        root: where `proc` and `sys` are mounted.
    """
    left = available(root) if jax.default_backend() == "cpu" else None
    if left is None:
        return False
    pages = int((root / "proc/self/statm").read_text().split()[1])
    return left < pages * os.sysconf("SC_PAGE_SIZE")


def give_back() -> None:
    """Gives freed memory back to the system, once, where glibc keeps it.

    The memory of one step is a single block. glibc 2.36 often does not use
    the freed block of a step again for the next (probably as it asks for a few bytes
    more than the block has, to align it): the first steps of a program were seen to
    take two or three blocks. Called after each of those, the process never holds more
    than one. It costs the page faults of the next step, up to a fifth of its time.
    Where JAX computes on something else than the CPU, there is nothing to give back.
    """
    if jax.default_backend() == "cpu" and platform.libc_ver()[0] == "glibc":
        time.sleep(_LET_GO)
        ctypes.CDLL(None).malloc_trim(0)
