"""The two programs of docs/serve.md answer over HTTP what JAX computes."""

import contextlib
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
import PIL.ExifTags
import PIL.Image
import pytest

from vgg_jax.inference.predict import predictions
from vgg_jax.interop.load import load

ROOT = Path(__file__).resolve().parents[2]
ARTEFACTS = Path(__file__).parent / "artefacts"
KEPT = np.load(ARTEFACTS / "sample.npz")


@contextlib.contextmanager
def served(program, network, path):
    """Starts a program on a free port; yields what posts to it, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "examples" / program, ARTEFACTS / network]

    def post(body):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body)
        request.add_header("Content-Type", "application/json")
        for _ in range(240):
            assert server.poll() is None, "the server has ended"
            try:
                with urllib.request.urlopen(request) as reply:
                    return json.loads(reply.read())
            except urllib.error.HTTPError:
                raise
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        raise AssertionError("no answer in 2 minutes")

    with subprocess.Popen([*command, str(port)], stderr=subprocess.DEVNULL) as server:
        try:
            yield post
        finally:
            server.terminate()


@pytest.mark.slow
def test_stablehlo_without_a_server(tmp_path):
    pytest.importorskip("flatbuffers")
    rng = np.random.default_rng(0)
    photo = PIL.Image.fromarray(rng.integers(0, 256, (75, 50, 4), np.uint8))
    photo.save(tmp_path / "photo.png", exif=exif_of(orientation=6))
    network = load(ARTEFACTS / "net.safetensors")
    (want,) = predictions(network, [tmp_path / "photo.png"])
    with served("serve_stablehlo.py", "net.zip", "/") as post:
        found = post((tmp_path / "photo.png").read_bytes())
        np.testing.assert_allclose([*found.values()], want.probabilities, atol=1e-5)
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post(b"no picture")
        small = io.BytesIO()
        PIL.Image.fromarray(KEPT["images"][0]).save(small, "png")
        found = [*post(small.getvalue()).values()]
        np.testing.assert_allclose(found, KEPT["probabilities"][0], atol=1e-5)


def exif_of(orientation):
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = orientation
    return exif


@pytest.mark.slow
def test_onnx_in_litserve():
    pytest.importorskip("litserve")
    pytest.importorskip("onnxruntime")
    body = json.dumps({"images": KEPT["images"][:3].tolist()}).encode()
    with served("serve_onnx.py", "net-nhwc.onnx", "/predict") as post:
        found = post(body)
    rows = [[*named.values()] for named in found["probabilities"]]
    np.testing.assert_allclose(rows, KEPT["probabilities"][:3], atol=1e-5)
    assert "airplane" in found["probabilities"][0]
