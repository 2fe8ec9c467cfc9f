from __future__ import annotations

import pytest
import torch

from vistasks.heads.layers import upsample


@pytest.mark.parametrize("centre", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("coarse", "fine"), [(4, 2), (8, 1), (4, 1)])
def test_a_ramp_stays_a_ramp_in_the_pixels_the_cells_look_at(centre: float, coarse: int, fine: int) -> None:
    def ramp(stride: int) -> torch.Tensor:
        """Each cell holds the row and the column that it looks at, of a picture of 32 x 48."""
        rows, columns = ((torch.arange(side // stride) * stride + centre * (stride - 1.0)) for side in (32, 48))
        return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]

    found = upsample(ramp(coarse), (32 // fine, 48 // fine), centre)
    margin = coarse // fine  # beyond the outermost cells the values are repeated
    inner = (..., slice(margin, -margin), slice(margin, -margin))
    assert found.shape == ramp(fine).shape
    torch.testing.assert_close(found[inner], ramp(fine)[inner])


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_beyond_the_outermost_cells_are_repeated(memory: torch.memory_format, dtype: torch.dtype) -> None:
    maps = torch.arange(6.0).view(1, 1, 2, 3).to(dtype).contiguous(memory_format=memory).requires_grad_()
    first, last = upsample(maps, (4, 6), 0.0), upsample(maps, (4, 6), 1.0)
    assert first[0, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2] and last[0, 0, 0].tolist() == [0, 0, 0.5, 1, 1.5, 2]
    (first.sum() + last.sum()).backward()
    assert maps.grad is not None and maps.grad.sum() == 48  # each of the 2 x 24 values is a mean of the maps
