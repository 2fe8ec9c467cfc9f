"""What needs a CUDA device: pytest -m gpu."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.heads.contract import CLASSES, scene, small_trunk
from vistasks.benchmarks.video import write_clip
from vistasks.inference.video.reader import VideoReader
from vistasks.loading.batching import to_device
from vistasks.models import MultiTaskModel
from vistasks.models.cuda_graphs import GraphedEncoder
from vistasks.registry import HEADS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
]


def joint(roi: str = "align") -> MultiTaskModel:
    backbone, trunk = small_trunk()
    given = {"trunk": trunk, "classes": CLASSES}
    detection = {"name": "region_classifier", "hidden": [16], "roi": roi, "warp": {"crop": 64, "context": 4}}
    heads = {
        "detection": HEADS.build(detection, where="detection", given=given),
        "segmentation": HEADS.build({"name": "fcn8s", "hidden": 8}, where="segmentation", given=given),
    }
    return MultiTaskModel(backbone, None, heads, {})


@pytest.mark.parametrize("roi", ["align", "warp"])
def test_predictions_equal_the_cpus(roi: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = joint(roi).eval()
    expected = model.predict(scene())
    found = model.cuda().predict(to_device(scene(), torch.device("cuda")))
    for a, b in zip(expected, found):
        assert np.allclose(np.sort(a.detections.scores), np.sort(b.detections.scores), atol=1e-4)
        assert (a.segmentation.labels == b.segmentation.labels).mean() > 0.999


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_trains(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = joint().cuda().train()
    batch = to_device(scene(), torch.device("cuda"))
    batch = replace(batch, segmentation=torch.where(batch.segmentation == 255, 255, 1))
    optimizer, scaler = (
        torch.optim.AdamW(model.parameters(), lr=2e-3),
        torch.amp.GradScaler(enabled=dtype == torch.float16),
    )
    losses = []
    for _ in range(30):
        with torch.autocast("cuda", dtype=dtype):
            loss = torch.stack(list(model.loss(batch).values())).sum()
        assert loss.dtype == torch.float32
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("precision", [None, torch.float16])
def test_cuda_graphs_change_no_answer(precision: torch.dtype | None) -> None:
    model, plain = joint().cuda().eval(), joint().cuda().eval()
    plain.load_state_dict(model.state_dict())
    model.precision = plain.precision = precision
    model.encode = GraphedEncoder(model.encode)  # type: ignore[method-assign]
    batch = to_device(scene(), torch.device("cuda"))
    for turn in range(4):  # as it is, captured, replayed, replayed; every picture another one
        moved = replace(batch, images=batch.images.roll(7 * turn, dims=-1))
        with torch.inference_mode(), model.autocast(moved):
            expected, found = plain.features(moved), model.features(moved)
        for stride, maps in expected.maps.items():
            assert torch.allclose(maps.float(), found.maps[stride].float(), rtol=1e-2, atol=1e-3)
        for a, b in zip(plain.predict(moved), model.predict(moved)):
            assert np.allclose(np.sort(a.detections.scores), np.sort(b.detections.scores), atol=1e-2)
            assert (a.segmentation.labels == b.segmentation.labels).mean() > 0.99


def test_hardware_decodes_the_same_frames(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 20, (240, 320))
    for soft, hard in zip(VideoReader(clip), VideoReader(clip, decoder="hardware"), strict=True):
        assert soft.seconds == hard.seconds and np.abs(soft.image.astype(int) - hard.image).max() <= 2
