"""Chromium over the DevTools protocol, through a pipe: no port, no package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


class Chromium:
    """A browser of its own; use as a context manager.

    Args:
        folder: for its profile; a second browser over the same folder would be refused by Chromium.
    """

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # Chromium reads descriptor 3 and writes 4.
        run = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
        command = ["bash", "-c", run, "bash", str(theirs_in), str(theirs_out), CHROMIUM, *FLAGS]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={folder}"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._in)
        os.close(self._out)

    def send(self, method: str, session: str = "", timeout: float = 20, **parameters: Any) -> Any:
        """Send a command and return its result; what happens meanwhile is kept in `events`."""
        self._number += 1
        number = self._number
        asked = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        data = json.dumps(asked).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        end = time.monotonic() + timeout
        while True:
            answer = self._read(end, method)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self.events.append(answer)

    def _read(self, end: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0, end - time.monotonic()))
            assert ready, f"{method}: no answer from Chromium"
            read = os.read(self._in, 1 << 20)
            assert read, "Chromium is gone"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def tab(self, address: str, wide: int = 1280, high: int = 800, dark: bool = False) -> Tab:
        """Open an address in a tab of this size."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log"):
            tab.send(f"{domain}.enable")
        tab.size(wide, high)
        tab.theme(dark)
        tab.send("Page.navigate", url=address)
        return tab


class Tab:
    """A page; a person's hands on it."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self.browser, self.session = browser, session

    def send(self, method: str, **parameters: Any) -> Any:
        return self.browser.send(method, self.session, **parameters)

    def size(self, wide: int, high: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=wide, height=high, deviceScaleFactor=1, mobile=False)

    def theme(self, dark: bool) -> None:
        value = "dark" if dark else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def run(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, awaited."""
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self.send("Runtime.evaluate", **asked)
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 10) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({expression})"):
            assert time.monotonic() < end, (expression, self.run("document.body.innerText")[:1500], self.errors())
            time.sleep(0.02)

    def key(self, *keys: str, shift: bool = False, ctrl: bool = False) -> None:
        """Press keys: characters, or names like Enter."""
        for key in keys:
            asked: dict[str, Any] = {"key": key, "modifiers": 8 * shift + 2 * ctrl, "code": key}
            if len(key) == 1:
                asked["code"] = f"Digit{key}" if key.isdigit() else f"Key{key.upper()}" if key.isalpha() else key
            typed = {"text": "\r" if key == "Enter" else key} if (len(key) == 1 or key == "Enter") and not ctrl else {}
            code = {"Enter": 13, "Escape": 27, "Tab": 9, "Delete": 46, "Backspace": 8}.get(key)
            if code:
                asked["windowsVirtualKeyCode"] = code
            self.send("Input.dispatchKeyEvent", type="keyDown", **asked, **typed)
            self.send("Input.dispatchKeyEvent", type="keyUp", **asked)

    def mouse(self, kind: str, x: float, y: float, held: bool = False, modifiers: int = 0) -> None:
        button = {"button": "left", "buttons": 1, "clickCount": 1} if held or kind != "mouseMoved" else {}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, modifiers=modifiers, **button)

    def drag(self, *places: tuple[float, float], modifiers: int = 0) -> None:
        """Press at the first place, move through the others, release at the last one."""
        self.mouse("mouseMoved", *places[0])
        self.mouse("mousePressed", *places[0], modifiers=modifiers)
        for place in places[1:]:
            self.mouse("mouseMoved", *place, held=True, modifiers=modifiers)
        self.mouse("mouseReleased", *places[-1], modifiers=modifiers)

    def click(self, selector: str, modifiers: int = 0) -> None:
        """Click the middle of what a selector finds."""
        where = (
            f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        x, y = self.run(where)
        self.drag((x, y), modifiers=modifiers)

    def shot(self, path: Path) -> None:
        """Write a screenshot."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def errors(self) -> list[str]:
        """Return what the page complained about: exceptions, and what the policy refused."""
        self.run("1")
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            if event["method"] == "Runtime.exceptionThrown":
                details = event["params"]["exceptionDetails"]
                found.append(details.get("exception", {}).get("description", details["text"]))
            entry = event["params"].get("entry", {})
            if event["method"] == "Log.entryAdded" and entry["level"] == "error" and entry["source"] != "network":
                found.append(entry["text"])
        return found
