"""A run that another process can interrupt: ``python -m tests.inference.video.long_run SOURCE OUTPUT DELAY
[OPTION=VALUE ...]``.

DELAY is how many seconds the cheap model takes for a batch of two frames. Prints the summary as `vistasks
infer` does."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from tests.inference.video.cheap import CheapBackend
from vistasks.inference.images import infer, print_summary
from vistasks.inference.predictor import Predictor
from vistasks.inference.video.options import InferOptions
from vistasks.types import Prediction


class SlowBackend(CheapBackend):
    def __init__(self, delay: float) -> None:
        super().__init__()
        self.delay = delay

    def predict(self, batch: list[np.ndarray]) -> list[Prediction]:
        time.sleep(self.delay)
        return super().predict(batch)


def main() -> int:
    source, output, delay, *rest = sys.argv[1:]
    given = {name: json.loads(value) for name, value in (text.split("=") for text in rest)}
    options = InferOptions(progress=False, part_frames=6, **given)
    predictor = Predictor(SlowBackend(float(delay)), batch_size=2)
    return print_summary(infer(predictor, source, output, options=options), Path(output))


if __name__ == "__main__":
    sys.exit(main())
