"""Parts of a video -> one .mp4, with the sound of the video that they were made from; no picture is encoded
again.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av

from vistasks.inference.video.sinks import TICKS
from vistasks.system.atomic import replacing

_SOUNDS = ("aac", "mp3", "mp2", "ac3", "eac3", "opus", "flac", "alac")  # what may stand in an .mp4 as it is


def join_videos(
    parts: Sequence[tuple[Path, int]], target: Path, *, sound: Path | None = None, until: float | None = None
) -> str | None:
    """Writes ``target``, whole or not at all.

    Args:
        parts: files by `vistasks.inference.video.sinks.VideoWriter` of one size and rate, and the tick at
            which each begins.
        target: the .mp4 file.
        sound: a file whose first sound is copied, or encoded as AAC where an .mp4 cannot hold it; None, or a
            file without: no sound.
        until: sound from this second on is left out.

    Returns: why the sound was left out; None where it was not, or where there is none.
    """
    with replacing(target) as temporary, ExitStack() as files:
        output = files.enter_context(
            av.open(str(temporary.absolute()), mode="w", options={"movflags": "+faststart"})
        )
        first = files.enter_context(av.open(str(parts[0][0].absolute())))
        video = output.add_stream_from_template(first.streams.video[0])
        video.time_base = Fraction(1, TICKS)
        flows = [_pictures(parts, video)]
        problem = None
        source = files.enter_context(av.open(str(sound.absolute()))) if sound is not None else None
        if source is not None and source.streams.audio:
            track = source.streams.audio[0]
            if track.codec_context is None:
                problem = f"{sound}: FFmpeg does not know the coding of its sound, which was left out"
            elif track.codec_context.name in _SOUNDS:
                flows.append(_sounds(source, output.add_stream_from_template(track), until))
            else:
                layout = (
                    "mono" if track.layout.nb_channels == 1 else "stereo"
                )  # PCM often names channels by their number alone
                flows.append(_as_aac(source, output.add_stream("aac", rate=track.rate, layout=layout), until))
        for _, packet in heapq.merge(*flows, key=lambda pair: pair[0]):
            output.mux_one(packet)
    return problem


def _pictures(parts: Sequence[tuple[Path, int]], stream: av.VideoStream) -> Iterator[tuple[float, av.Packet]]:
    for path, begin in parts:
        with av.open(str(path.absolute())) as container:
            for packet in container.demux(container.streams.video[0]):
                if (
                    packet.dts is None or packet.pts is None or packet.time_base is None
                ):  # the end of the file
                    continue
                shift = round(begin / (packet.time_base * TICKS))
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = stream
                yield float(packet.dts * packet.time_base), packet


def _as_aac(
    container: av.container.InputContainer, stream: av.AudioStream, until: float | None
) -> Iterator[tuple[float, av.Packet]]:
    """Sound that an .mp4 cannot hold as it is, such as a camera's PCM, encoded."""
    start = (container.start_time or 0) / av.time_base
    stream.codec_context.open()
    size = stream.codec_context.frame_size
    resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate, frame_size=size)

    def encoded(frame: av.AudioFrame | None) -> Iterator[tuple[float, av.Packet]]:
        for piece in resampler.resample(frame):
            for packet in stream.encode(piece):
                yield float((packet.dts or 0) * (packet.time_base or 0)), packet

    with contextlib.suppress(av.FFmpegError):  # a file that was cut off: the sound until there
        for frame in container.decode(audio=0):
            seconds = (frame.time or 0.0) - start
            if until is not None and seconds >= until:
                break
            frame.pts = round(seconds / (frame.time_base or 1))
            yield from encoded(frame)
    yield from encoded(None)
    for packet in stream.encode(None):
        yield float((packet.dts or 0) * (packet.time_base or 0)), packet


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
