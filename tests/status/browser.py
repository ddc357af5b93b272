# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Chromium without a window, driven by selenium.

Selenium's calls block, so they run in a thread while the reactor serves the page.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

T = TypeVar("T")

MISSING = [each for each in ("chromium", "chromedriver") if shutil.which(each) is None]

WIDE = (1280, 800)
NARROW = (360, 740)


def inThread(call: Callable[..., T], *arguments: Any) -> Deferred[T]:
    """
    Call what blocks.
    """
    return deferToThread(call, *arguments)


class Browser:
    """
    One browser, with one page.
    """

    def __init__(self) -> None:
        from selenium.webdriver import Chrome, ChromeOptions
        from selenium.webdriver.chrome.service import Service

        options = ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in (
            "--headless=new",
            # Chromium does not run as root with a sandbox.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--force-prefers-reduced-motion",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self._driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))

    def quit(self) -> None:
        """
        End the browser.
        """
        self._driver.quit()

    async def open(
        self,
        url: str,
        *,
        dark: bool = False,
        forced: bool = False,
        size: tuple[int, int] = WIDE,
        scale: float = 1.0,
    ) -> None:
        """
        Load the page anew, and wait until it shows the peers.

        @param forced: whether the system replaces the colours of the page by a few of its own.
        @param scale: pixels of the screen for one of the page's.
        """

        def load() -> None:
            width, height = size
            command = self._driver.execute_cdp_cmd
            features = {
                "prefers-color-scheme": "dark" if dark else "light",
                "forced-colors": "active" if forced else "none",
            }
            given = [{"name": name, "value": value} for name, value in features.items()]
            command("Emulation.setEmulatedMedia", {"features": given})
            metrics = {
                "width": width,
                "height": height,
                "deviceScaleFactor": scale,
                "mobile": False,
            }
            command("Emulation.setDeviceMetricsOverride", metrics)
            self._driver.get("about:blank")
            self._driver.get_log("browser")
            self._driver.get(url)

        await inThread(load)
        await self.until("document.documentElement.dataset.loaded === 'true'")

    async def run(self, script: str, *arguments: Any) -> Any:
        """
        The value of a JavaScript expression.
        """
        return await inThread(self._driver.execute_script, f"return {script}", *arguments)

    async def until(self, condition: str, seconds: float = 10.0) -> float:
        """
        Wait until an expression is true.

        @return: for how long.
        """
        began = reactor.seconds()  # type: ignore[attr-defined]
        while not await self.run(condition):
            passed = reactor.seconds() - began  # type: ignore[attr-defined]
            assert passed < seconds, f"not true after {seconds} s: {condition}"
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]
        return float(reactor.seconds() - began)  # type: ignore[attr-defined]

    async def press(self, *keys: str) -> None:
        """
        Press keys, one after the other, wherever the focus is.
        """
        from selenium.webdriver import ActionChains

        def send() -> None:
            for key in keys:
                ActionChains(self._driver).send_keys(key).perform()

        await inThread(send)

    async def point(self, x: int, y: int) -> None:
        """
        Move the pointer to a place of the page.
        """
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        def move() -> None:
            actions = ActionBuilder(self._driver, duration=0)
            actions.pointer_action.move_to_location(x, y)
            actions.perform()

        await inThread(move)

    async def text(self, selector: str) -> str:
        """
        The text of the first element of a selector, as it is shown.
        """
        return str(await self.run("document.querySelector(arguments[0]).innerText", selector))

    async def click(self, selector: str) -> None:
        """
        Click on an element.
        """
        await self.run("document.querySelector(arguments[0]).click()", selector)

    async def picture(self, path: str) -> None:
        """
        Save what is shown.
        """
        await inThread(self._driver.save_screenshot, path)

    async def complaints(self) -> list[str]:
        """
        What the console has: errors, and breaches of the page's policy.
        """
        entries = await inThread(self._driver.get_log, "browser")
        return [entry["message"] for entry in entries]
