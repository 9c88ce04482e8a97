"""Event files for TensorBoard, written at once and without a thread.

`tensorboardX.SummaryWriter` hands values to a thread; where that dies (a full disk, a
clock set back), the next value waits for ever.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

from vgg_jax.runs.trackers import Tracker

protos: Any = event_pb2  # generated; its classes are not declared


def opened(directory: Path, step: int) -> Tracker:
    """Returns a new event file; what older ones hold after `step` is not shown.

    Args:
        directory: created if missing.
        step: updates made so far.

    Raises:
        OSError: the file cannot be written.
    """
    directory.mkdir(exist_ok=True)
    # The file's name holds the second; the process makes it unlike that of a restart.
    events = EventsWriter(str(directory / "events"), f".{os.getpid()}")
    if step:
        started = protos.SessionLog(status=protos.SessionLog.START)
        events.write_event(protos.Event(step=step + 1, session_log=started))

    def write(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            now, summary = time.time(), scalar(name, value)
            events.write_event(protos.Event(step=step, wall_time=now, summary=summary))
        events.flush()

    def close(ending: str) -> None:
        del ending
        events.close()

    return Tracker("TensorBoard", write, close)
