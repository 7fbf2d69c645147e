"""A headless Chromium driven over its DevTools protocol, with nothing but a web socket."""

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE_S = 120


def executable() -> str | None:
    """The browser to use: $CHROMIUM, or the first known name on the path."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One browser process; `open` gives pages."""

    def __init__(self, program: str, folder: Path) -> None:
        switches = """headless=new no-sandbox disable-gpu mute-audio no-first-run disable-extensions hide-scrollbars
            disable-background-networking disable-dev-shm-usage force-device-scale-factor=1 remote-debugging-port=0
            autoplay-policy=no-user-gesture-required remote-allow-origins=*"""
        arguments = [f"--{switch}" for switch in switches.split()]
        arguments += [f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self.log = (folder / "browser.log").open("wb")
        self.process = subprocess.Popen([program, *arguments], stdout=self.log, stderr=self.log)
        self.port = self._port(folder / "profile" / "DevToolsActivePort", folder / "browser.log")

    def _port(self, file: Path, log: Path) -> int:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError, ValueError, IndexError):
                return int(file.read_text().split("\n")[0])
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"the browser did not start: {log.read_text(errors='replace')[-2000:]}")

    def open(self, address: str, width: int = 1280, height: int = 900) -> "Page":
        """A new page that has loaded `address`."""
        import urllib.request

        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            page = Page(json.load(answer)["webSocketDebuggerUrl"])
        page.call("Page.enable")
        page.call("Runtime.enable")
        page.call("Log.enable")
        page.size(width, height)
        page.go(address)
        return page

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        self.log.close()


class Page:
    """One tab. Everything that went wrong in it is kept in `complaints`."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=PATIENCE_S)
        self.numbers = itertools.count(1)
        self.complaints: list[str] = []
        self.loaded = False

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; events on the way are noted."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._event(message)

    def _event(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {params['message']}")

    def go(self, address: str) -> None:
        """Load an address and wait until it has."""
        self.loaded = False
        self.call("Page.navigate", url=address)
        end = time.monotonic() + PATIENCE_S
        while not self.loaded and time.monotonic() < end:
            self._event(json.loads(self.socket.recv()))

    def size(self, width: int, height: int) -> None:
        """Size of the window's inside in pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def ask(self, expression: str) -> Any:
        """Value of a JavaScript expression; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression: str) -> Any:
        """The first true value of an expression. Fails after two minutes."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            value = self.ask(expression)
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}; complaints: {self.complaints}")

    def settle(self) -> None:
        """Let two frames be drawn."""
        self.ask("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def click(self, x: float, y: float) -> None:
        """A real click of the left button."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        self.settle()

    def press(self, key: str, shift: bool = False) -> None:
        """A real key stroke."""
        text = {"Space": " "}.get(key, key if len(key) == 1 else "")
        known = {"key": text or key, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **known)
        self.call("Input.dispatchKeyEvent", type="keyUp", **known)
        self.settle()

    def centre(self, selector: str) -> tuple[float, float]:
        """Middle of an element, in pixels of the window."""
        script = (
            f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            "return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        )
        x, y = self.ask(script)
        return x, y

    def screenshot(self, path: Path) -> None:
        """PNG of the window."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """Close the tab."""
        with contextlib.suppress(Exception):
            self.call("Page.close")
        self.socket.close()


def script_hashes(text: str) -> list[str]:
    """The hashes a page's policy allows to run."""
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    return re.findall(r"script-src '([^']*)'", policy[1])
