"""A headless Chromium, driven through a pipe by its own protocol; no other library.

For the test of the exported page and the pictures of it in the manual:

    with Browser() as browser:
        browser.open(Path("page.html"))
        browser.evaluate("document.title")
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # which root cannot have
    "--no-first-run",
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no network
    "--hide-scrollbars",
    "--use-fake-ui-for-media-stream",  # a camera that shows a test picture
    "--use-fake-device-for-media-stream",
)
_TIME = 120  # seconds that a page has for one thing


def program() -> str | None:
    """Returns the path of an installed Chromium, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One window without a network; `requests` lists what its page asked for."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._count = 0
        self._buffer = b""

    def __enter__(self) -> Self:
        found = program()
        assert found, "apt-get install chromium"
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_it, self._out = os.pipe()
        self._in, from_it = os.pipe()
        flags = [*_FLAGS, f"--user-data-dir={self._profile.name}"]
        # Chromium reads from descriptor 3 and writes to 4.
        shell = f'exec "$@" 3<&{to_it} 4>&{from_it}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", found, *flags, "about:blank"],
            pass_fds=(to_it, from_it),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_it)
        os.close(from_it)
        self._session = ""
        targets = self.send("Target.getTargets")["targetInfos"]
        (target,) = [t["targetId"] for t in targets if t["type"] == "page"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result."""
        self._count += 1
        call: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            call["sessionId"] = self._session
        left = json.dumps(call).encode() + b"\0"
        while left:
            left = left[os.write(self._out, left) :]
        while True:
            said = self._message()
            if said.get("id") == self._count:
                assert "error" not in said, f"{method}: {said['error']}"
                return said["result"]
            self._note(said)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._in, 1 << 20)
            assert part, "Chromium has ended"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def _note(self, said: dict[str, Any]) -> None:
        params = said.get("params", {})
        if said.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"][:100])
        if said.get("method") == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"]["exception"]["description"])

    def open(self, path: Path) -> None:
        """Opens a file from the disk."""
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def evaluate(self, program: str) -> Any:
        """Returns the value of a JavaScript expression, awaited if it is a promise."""
        found = self.send(
            "Runtime.evaluate",
            expression=program,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Returns once a JavaScript expression is true."""
        end = time.monotonic() + _TIME
        while not self.evaluate(condition):
            assert time.monotonic() < end, f"not true in {_TIME} s: {condition}"
            time.sleep(0.05)

    def drop(self, name: str, content: bytes) -> None:
        """Drops a file on the page."""
        text = base64.b64encode(content).decode()
        self.evaluate(
            f"""(() => {{
              const bytes = Uint8Array.from(atob("{text}"), (c) => c.charCodeAt(0));
              const dataTransfer = new DataTransfer();
              dataTransfer.items.add(new File(
                [bytes], "{name}", {{type: "image/png"}}));
              const place = document.elementFromPoint(innerWidth / 2, innerHeight / 2);
              place.dispatchEvent(new DragEvent("drop",
                {{dataTransfer, bubbles: true, cancelable: true}}));
            }})()"""
        )

    def look(self, width: int, height: int, scheme: str) -> bytes:
        """Returns a PNG of the page in a window of a size, "light" or "dark"."""
        self.resize(width, height, scheme)
        return base64.b64decode(self.send("Page.captureScreenshot")["data"])

    def resize(self, width: int, height: int, scheme: str) -> None:
        """Sets the size of the window in pixels, and the colour scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=media)
