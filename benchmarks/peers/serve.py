"""The protocol between `throughput.py` and a peer: standard library only.

A peer is a program that takes a job (JSON) as its one argument, builds the step, warms
up and calls `serve`. It then answers each line `<n>` on standard input with the seconds
that `n` steps took, and ends with the input. Whatever else it prints goes to stderr.
"""

import json
import os
import sys
import time
from collections.abc import Callable


def job() -> dict:
    """The job: `mode` (train, infer), `dtype`, `batch_norm`, `batch`, `size`, ..."""
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return json.loads(sys.argv[1])


def serve(steps: Callable[[int], None], **facts) -> None:
    """Says that the peer is ready, then times `steps(n)` whenever asked.

    `steps` must have finished all its work when it returns.
    """
    start = time.perf_counter()
    steps(2)
    _say({"ready": True, "first_seconds": time.perf_counter() - start, **facts})
    for line in sys.stdin:
        start = time.perf_counter()
        steps(int(line))
        _say({"seconds": time.perf_counter() - start})


def _say(message):
    print(json.dumps(message), file=sys.stdout, flush=True)
