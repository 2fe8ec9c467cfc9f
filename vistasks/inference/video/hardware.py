"""Decoding of video in hardware, where the machine and FFmpeg have a device for it (NVDEC, Quick Sync,
VideoToolbox, ...).
"""

from __future__ import annotations

from pathlib import Path

import av
from av.codec.hwaccel import HWAccel, hwdevices_available


def hardware_for(path: Path, options: dict[str, str]) -> str:
    """The first kind of device on this machine, such as "cuda", that decodes this video.

    Each kind that FFmpeg was built for is tried with the first frame. H.264 and its like define every decoded
    bit, so that frames are those of the software decoder.

    Args:
        path: the video file.
        options: FFmpeg's, with which it is opened.

    Raises:
        ValueError: no device decodes it, with what each one said.
    """
    tried = []
    for kind in hwdevices_available():
        try:
            with av.open(str(path.absolute()), options=options, hwaccel=accelerator(kind)) as container:
                next(container.decode(video=0))
            return kind
        except (av.FFmpegError, NotImplementedError, RuntimeError, StopIteration) as error:
            tried.append(f"{kind}: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}")
    raise ValueError(
        f"{path}: --decoder hardware: no device of this machine decodes it ({'; '.join(tried) or 'FFmpeg knows none'}); "
        "leave --decoder out"
    )


def accelerator(kind: str) -> HWAccel:
    """What `av.open` takes to decode on a device of this kind, and nowhere else."""
    return HWAccel(device_type=kind, allow_software_fallback=False)
