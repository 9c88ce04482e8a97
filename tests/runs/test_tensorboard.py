"""TensorBoard's files, read by the format: length, CRC, a message, CRC."""

import struct

from tensorboardX.proto import event_pb2

from vgg_jax.runs import tensorboard


def events(file):
    """Yields the messages of a file, one TFRecord each."""
    data, at = file.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length


def shown(directory):
    """Step -> value of "loss", as TensorBoard shows them.

    Its EventAccumulator drops what has a step of at least that of a later START
    (`_CheckForRestartAndMaybePurge`).
    """
    values = {}
    for file in sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        for event in events(file):
            if event.HasField("session_log"):
                assert event.session_log.status == event_pb2.SessionLog.START
                values = {k: v for k, v in values.items() if k < event.step}
            for value in event.summary.value:
                assert value.tag == "loss"
                values[event.step] = value.simple_value
    return values


def test_what_came_after_the_checkpoint_is_shown_no_more(tmp_path, monkeypatch):
    """A run that ended at step 3 goes on from its checkpoint of step 2."""
    killed = tensorboard.opened(tmp_path, 0)
    for step in (1, 2, 3):
        killed.write({"loss": 4.0}, step)
    killed.close("failed")
    monkeypatch.setattr(tensorboard.os, "getpid", lambda: 1)  # its name is another
    resumed = tensorboard.opened(tmp_path, 2)
    resumed.write({"loss": 0.5}, 4)
    resumed.close("finished")
    assert shown(tmp_path) == {1: 4.0, 2: 4.0, 4: 0.5}
