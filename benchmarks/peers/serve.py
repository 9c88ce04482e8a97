"""The protocol between `peer.py` and a peer; needs the standard library only.

A peer is a program that takes a job (JSON) as its one argument, builds the step, warms
up and calls `serve`. It then answers each line `<n>` on standard input with the seconds
that `n` steps took, and ends when the input does. What native code prints goes to
stderr.
"""

import json
import os
import sys
import time
from collections.abc import Callable


def read_job() -> dict:
    """Returns the job: `mode` (train, infer), `dtype`, `batch_norm`, `batch`, `size`...

    From here on, what native code writes to standard output goes to stderr; so call it
    before importing a framework that does so.
    """
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return json.loads(sys.argv[1])


def serve(
    steps: Callable[[int], None],
    device_memory: Callable[[], int] = lambda: 0,
    **facts,
) -> None:
    """Says that the peer is ready, then times `steps(n)` whenever asked.

    Args:
        steps: runs so many steps; all their work is finished when it returns.
        device_memory: returns the most bytes that its arrays ever took on an
            accelerator; 0: it computes on the CPU.
        facts: what the peer says of itself when it is ready.
    """
    start = time.perf_counter()
    steps(2)
    _say({"ready": True, "first_seconds": time.perf_counter() - start, **facts})
    for line in sys.stdin:
        start = time.perf_counter()
        steps(int(line))
        seconds = time.perf_counter() - start
        _say({"seconds": seconds, "device_memory": device_memory()})


def jax_memory() -> int:
    """Returns the most bytes that JAX's arrays ever took on its first device; 0: CPU's.

    XLA counts what it plans for a program, its temporaries included.
    """
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def _say(message):
    print(json.dumps(message), file=sys.stdout, flush=True)
