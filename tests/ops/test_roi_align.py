from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align

from vistasks.ops.roi_align import gather_roi_align


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size, stride, samples", [(7, 8, 2), (3, 16, 1), (1, 4, 3)])
def test_it_gives_torchvisions_values(
    memory: torch.memory_format, size: int, stride: int, samples: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 5, 12, 9, generator=generator).to(memory_format=memory)
    corner = torch.rand(60, 2, generator=generator) * torch.tensor([9.0, 12.0]) * stride
    boxes = torch.cat([corner, corner + 1 + torch.rand(60, 2, generator=generator) * 6 * stride], dim=1)
    boxes[:10] -= 4 * stride  # partly and wholly outside
    boxes[10] = torch.tensor([0, 0, 9.0, 12.0]) * stride
    rois = torch.cat([torch.randint(0, 2, (60, 1), generator=generator).float(), boxes], dim=1)
    expected = roi_align(maps.contiguous(), rois, size, 1 / stride, sampling_ratio=samples, aligned=True)
    found = gather_roi_align(maps, rois, size=size, stride=stride, samples=samples)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_without_regions() -> None:
    assert gather_roi_align(torch.zeros(1, 4, 3, 3), torch.zeros(0, 5), size=7, stride=8).shape == (
        0,
        4,
        7,
        7,
    )
