"""A browser without a screen, steered through its pipe: messages in JSON, each ended by a zero byte."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage",
    "--force-device-scale-factor=1",
)  # fmt: skip
LONGEST_S = 120.0  # a machine may be slow; a browser that does not answer is ended
TO_BROWSER, FROM_BROWSER = 3, 4  # descriptors that --remote-debugging-pipe reads and writes


class Browser:
    """One page of a browser, and the events that it told of.

    Parameters
    ----------
    write, read : int
        Descriptors of our ends of the pipe.
    """

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Security"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        _write_all(self._write, json.dumps(message).encode() + b"\0")
        number = self._number
        answer = self._wait(lambda told: told.get("id") == number)
        assert "error" not in answer, f"{method}: {answer.get('error')}"
        return dict(answer["result"])

    def open(self, address: str) -> None:
        """Go to an address and wait until everything of the page is there."""
        self.events.clear()
        self.call("Page.navigate", url=address)
        if not self.named("Page.loadEventFired"):
            self._wait(lambda told: told.get("method") == "Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """Return what an expression of the page is; a promise is waited for."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def named(self, *methods: str) -> list[dict[str, Any]]:
        """Return the events of some names since the page was opened."""
        return [event["params"] for event in self.events if event["method"] in methods]

    def _wait(self, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Read messages up to the first that is wanted; keep events."""
        end_s = time.monotonic() + LONGEST_S
        while True:
            message, found, rest = self._rest.partition(b"\0")
            if found:
                self._rest = rest
                told = dict(json.loads(message))
                if "method" in told:
                    self.events.append(told)
                if is_wanted(told):
                    return told
                continue
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not select.select([self._read], [], [], left_s)[0]:
                raise TimeoutError("the browser does not answer")
            content = os.read(self._read, 1 << 20)
            if not content:
                raise EOFError("the browser has ended")
            self._rest += content


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


@contextmanager
def open_browser(program: str, folder: Path, *, width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """Start a browser with a profile of its own; end it, and all it has started, when the block ends.

    Parameters
    ----------
    program : str
        Path of Chromium or Chrome.
    folder : Path
        For its profile and its messages.
    width, height : int
        Of its window.
    """
    ours_read, theirs_write = os.pipe()
    theirs_read, ours_write = os.pipe()
    command = [program, *FLAGS, f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}"]
    command += ["--remote-debugging-pipe", "about:blank"]

    shell = f'exec "$@" {TO_BROWSER}<&{theirs_read} {FROM_BROWSER}>&{theirs_write}'
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "browser", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(theirs_read, theirs_write),
            start_new_session=True,
        )
    os.close(theirs_read)
    os.close(theirs_write)
    try:
        yield Browser(ours_write, ours_read)
    finally:
        for descriptor in (ours_write, ours_read):
            os.close(descriptor)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
