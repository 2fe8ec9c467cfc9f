"""The page of --serve in a real browser, while a run goes on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.inference.video.browser import Browser
from vistasks.drawing.palette import model_colours
from vistasks.inference.prediction import PicturePrediction
from vistasks.inference.video.publishing import without
from vistasks.inference.video.serve import PageServer
from vistasks.inference.video.tracking import Line, VideoTracker
from vistasks.types import ClassNames, Detections, SegmentationMap

pytestmark = pytest.mark.slow

CLASSES = ClassNames(("cat", "dog"), ("background", "grass"))


class Run(threading.Thread):
    """Shows two objects that move over a grey picture with grass."""

    def __init__(self, page: PageServer) -> None:
        super().__init__(daemon=True)
        self.page, self.stopped = page, threading.Event()
        self.tracker = VideoTracker(classes=CLASSES, rate=25, start=0.5, lines=[Line(320, 0, 320, 360)])

    def run(self) -> None:
        for number in range(10_000):
            if self.stopped.wait(0.04):
                return
            shift = 8 * (number % 60)
            boxes = np.array(
                [[20 + shift, 60, 100 + shift, 140], [540 - shift, 200, 600 - shift, 300]], np.float32
            )
            found = Detections(boxes, np.array([0.9, 0.8], np.float32), np.array([0, 1]), CLASSES.detection)
            labels = np.zeros((360, 640), np.uint8)
            labels[300:] = 1
            image = np.full((360, 640, 3), 90, np.uint8)
            grass = SegmentationMap(labels, CLASSES.segmentation)
            seen = self.tracker.update(
                PicturePrediction(found, grass, image=image, path="x", seconds=number / 25, classes=CLASSES)
            )
            stats = {
                "frame": number,
                "latency": 0.03,
                "dropped": 2,
                "reconnects": 1,
                "facts": dict(seen.facts),
            }
            self.page.publish(without(seen, set(self.page.hidden)).draw(), stats)


@pytest.fixture
def page() -> Iterator[PageServer]:
    server = PageServer(0, classes=["cat", "dog", "grass"], colours=model_colours(CLASSES), source="camera 0")
    run = Run(server)
    run.start()
    yield server
    run.stopped.set()
    run.join()
    server.close()


def pixels(image: np.ndarray, name: str) -> int:
    """How many pixels have about the class's colour."""
    return int((np.abs(image.astype(int) - model_colours(CLASSES)[name]).max(axis=2) < 40).sum())


def test_a_browser_shows_boxes_on_a_moving_picture_and_hides_classes(page: PageServer) -> None:
    with Browser() as browser:
        browser.open(page.url)
        browser.wait_for("document.getElementById('picture').naturalWidth == 640")
        browser.wait_for("document.querySelectorAll('#classes input').length == 3")
        told = "/frames.s[0-9.]+latency30 ms.*dropped2reconnected1line 1.*viewers1/"
        browser.wait_for(f"{told}.test(document.getElementById('numbers').textContent)")
        first, png = browser.screenshot()
        if folder := os.environ.get("VISTASKS_SCREENSHOTS"):
            Path(folder, "page.png").write_bytes(png)
        time.sleep(0.5)
        second, _ = browser.screenshot()
        assert pixels(first, "cat") > 300 and pixels(first, "dog") > 300
        moved = (np.abs(first.astype(int) - second).max(axis=2) > 60).sum()
        assert moved > 500, "the image stands still"
        browser.run("document.querySelector('input[name=dog]').click()")
        browser.wait_for("document.querySelector('label.hidden-class') !== null")
        assert page.hidden == {"dog"}
        time.sleep(0.5)
        third, png = browser.screenshot()
        if folder:
            Path(folder, "page_without_dog.png").write_bytes(png)
        assert pixels(third, "cat") > 300 and pixels(third, "dog") < 200  # the swatch remains
        page.close()
        browser.wait_for("document.getElementById('message').textContent.startsWith('the run has ended')")
        assert [problem for problem in browser.problems if "ERR_CONNECTION_REFUSED" not in problem] == []
