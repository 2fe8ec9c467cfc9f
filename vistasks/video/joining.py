"""Parts of a video -> one .mp4, with the sound of the video that they were made from; nothing is encoded again."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av

from vistasks.atomic import replacing
from vistasks.video.sinks import TICKS

_SOUNDS = ("aac", "mp3", "mp2", "ac3", "eac3", "opus", "flac", "alac")  # what may stand in an .mp4 as it is


def join_videos(
    parts: Sequence[tuple[Path, int]], target: Path, *, sound: Path | None = None, until: float | None = None
) -> str | None:
    """Writes ``target``, whole or not at all.

    Args:
        parts: files by `vistasks.video.sinks.VideoWriter` of one size and rate, and the tick at which each begins.
        target: the .mp4 file.
        sound: a file whose first sound is copied; None, or a file without: no sound.
        until: sound from this second on is left out.

    Returns: why the sound could not be copied; None where it could, or where there is none.
    """
    with replacing(target) as temporary, ExitStack() as files:
        output = files.enter_context(av.open(str(temporary.absolute()), mode="w", options={"movflags": "+faststart"}))
        first = files.enter_context(av.open(str(parts[0][0].absolute())))
        video = output.add_stream_from_template(first.streams.video[0])
        video.time_base = Fraction(1, TICKS)
        flows = [_pictures(parts, video)]
        problem = None
        source = files.enter_context(av.open(str(sound.absolute()))) if sound is not None else None
        if source is not None and source.streams.audio:
            name = source.streams.audio[0].codec_context.name
            if name in _SOUNDS:
                flows.append(_sounds(source, output.add_stream_from_template(source.streams.audio[0]), until))
            else:
                problem = f"{sound}: its sound ({name}) cannot be copied into an .mp4 and was left out"
        for _, packet in heapq.merge(*flows, key=lambda pair: pair[0]):
            output.mux_one(packet)
    return problem


def _pictures(parts: Sequence[tuple[Path, int]], stream: av.VideoStream) -> Iterator[tuple[float, av.Packet]]:
    for path, begin in parts:
        with av.open(str(path.absolute())) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.dts is None or packet.pts is None or packet.time_base is None:  # the end of the file
                    continue
                shift = round(begin / (packet.time_base * TICKS))
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = stream
                yield float(packet.dts * packet.time_base), packet


def _sounds(
    container: av.container.InputContainer, stream: av.AudioStream, until: float | None
) -> Iterator[tuple[float, av.Packet]]:
    start = Fraction(container.start_time or 0, av.time_base)
    try:
        for packet in container.demux(container.streams.audio[0]):
            if packet.dts is None or packet.pts is None or packet.time_base is None:
                continue
            shift = round(start / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            seconds = float(packet.dts * packet.time_base)
            if until is not None and seconds >= until:
                return
            packet.stream = stream
            yield seconds, packet
    except av.FFmpegError:  # a file that was cut off: the sound until there
        return
