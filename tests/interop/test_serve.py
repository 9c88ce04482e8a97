"""The two programs of docs/serve.md answer over HTTP what JAX computes."""

import io
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

ROOT = Path(__file__).resolve().parents[2]
ARTEFACTS = Path(__file__).parent / "artefacts"
KEPT = np.load(ARTEFACTS / "sample.npz")


def answer(program, network, path, body):
    """What a program, started on a free port, says to a request."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "examples" / program, ARTEFACTS / network]
    with subprocess.Popen([*command, str(port)], stderr=subprocess.DEVNULL) as server:
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body)
            request.add_header("Content-Type", "application/json")
            for _ in range(240):
                assert server.poll() is None, "the server has ended"
                try:
                    with urllib.request.urlopen(request) as reply:
                        return json.loads(reply.read())
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.5)
            raise AssertionError("no answer in 2 minutes")
        finally:
            server.terminate()


@pytest.mark.slow
def test_stablehlo_in_twenty_lines():
    pytest.importorskip("flatbuffers")
    picture = io.BytesIO()
    PIL.Image.fromarray(KEPT["images"][0]).save(picture, "png")
    found = answer("serve_stablehlo.py", "net.zip", "/", picture.getvalue())
    np.testing.assert_allclose([*found.values()], KEPT["probabilities"][0], atol=1e-5)


@pytest.mark.slow
def test_onnx_in_litserve():
    pytest.importorskip("litserve")
    pytest.importorskip("onnxruntime")
    body = json.dumps({"images": KEPT["images"][:3].tolist()}).encode()
    found = answer("serve_onnx.py", "net-nhwc.onnx", "/predict", body)
    rows = [[*named.values()] for named in found["probabilities"]]
    np.testing.assert_allclose(rows, KEPT["probabilities"][:3], atol=1e-5)
    assert "airplane" in found["probabilities"][0]
