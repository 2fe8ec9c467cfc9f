"""What a video file's container says: whether there is a video, which stream is the best, whether the file is
cut off or encrypted.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import av
from av.codec.hwaccel import HWAccel

_SUFFIXES = "3gp|asf|avi|flv|h264|m2ts|m4v|mjpeg|mkv|mov|mp4|mpeg|mpg|mts|mxf|nut|ogv|ts|vob|webm|wmv|y4m"
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split("|"))
LOCAL = {"protocol_whitelist": "file"}  # a list of addresses posing as a video must not fetch anything
# formats by which FFmpeg takes a text, a picture or a list of files for a video
_NO_VIDEOS = ("tty", "image2", "concat")
_IMAGES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|BM|II\*\0|MM\0\*|RIFF.{4}WEBP|P[1-7][\s#]|.{4}ftyp(?:avif|hei[cx]|mif1)",
    re.DOTALL,
)
_JPEG_STREAMS = (".mjpeg", ".mjpg")
_PROBED = 1 << 20  # bytes by which a format is recognised
_HEADERS = 1 << 24  # bytes in which the headers are looked for


def holds_video(path: Path) -> bool:
    """Whether the file holds a video, whatever its name; where FFmpeg cannot tell, its suffix decides."""
    with path.open("rb") as file:
        head = file.read(16)
    if _IMAGES.match(head):
        return path.suffix.lower() in _JPEG_STREAMS
    try:
        with open_container(path) as container:
            if is_video(container):
                return True
    except av.FFmpegError:
        pass
    return path.suffix.lower() in VIDEO_SUFFIXES


def open_container(path: Path, hwaccel: HWAccel | None = None) -> av.container.InputContainer:
    """Opens a file, whatever its name; an ``av.FFmpegError`` where FFmpeg does not know what it is."""
    container = av.open(str(path.absolute()), options=LOCAL, hwaccel=hwaccel)
    if is_video(container):
        return container
    container.close()
    with path.open("rb") as file:
        head = io.BytesIO(file.read(_PROBED))  # without a name: FFmpeg goes by the suffix, too
    with av.open(head, options=LOCAL) as nameless:
        kind = nameless.format.name.split(",")[0]
    return av.open(str(path.absolute()), format=kind, options=LOCAL, hwaccel=hwaccel)


def is_video(container: av.container.InputContainer, *, playlists: bool = False) -> bool:
    """Whether there are moving pictures in it: a sound's cover picture is none. ``playlists``: a list of
    parts (HLS) is a video, too.
    """
    kind = container.format.name
    if kind == "hls" and not playlists:
        return False
    return kind not in _NO_VIDEOS and not kind.endswith("_pipe") and any(map(_moves, container.streams.video))


def best_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The video stream with the most pixels; of several like it the one that is marked as default, then the
    first.
    """

    def rank(stream: av.VideoStream) -> tuple[bool, int, bool]:
        default = av.stream.Disposition.default in stream.disposition
        return _moves(stream), stream.codec_context.width * stream.codec_context.height, default

    return max(container.streams.video, key=rank)


def _moves(stream: av.VideoStream) -> bool:
    return av.stream.Disposition.attached_pic not in stream.disposition


def cut_off(path: Path, kind: str) -> bool:
    """Whether the file ends before its container does: by the sizes that MP4, Matroska and AVI files have in
    their headers, and by MPEG-TS's packets.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if kind.startswith("mov,"):
            at = 0
            while at + 8 <= size:
                file.seek(at)
                length = _box_length(file.read(16), size - at)
                if length < 8:
                    return False  # nonsense; the decoder will say
                at += length
            return at > size
        head = file.read(256)
    if kind.startswith("matroska"):
        end = _segment_end(head)
        return end is not None and end > size
    if kind == "avi":
        return head[:4] == b"RIFF" and int.from_bytes(head[4:8], "little") + 8 > size
    return kind == "mpegts" and all(size % packet for packet in (188, 192, 204))


def _box_length(head: bytes, rest: int) -> int:
    """ISO/IEC 14496-12, 4.2: 1: the length follows in 64 bits; 0: to the end of the file."""
    length = int.from_bytes(head[:4], "big")
    return int.from_bytes(head[8:16], "big") if length == 1 else length or rest


def _segment_end(head: bytes) -> int | None:
    """Where a Matroska file's segment ends (RFC 8794, 4 and 5); None where it does not say."""
    at = 4
    size, at = _variable_integer(head, at)
    if size is None:
        return None
    at += size + 4
    size, at = _variable_integer(head, at)
    return None if size is None else at + size


def _variable_integer(data: bytes, at: int) -> tuple[int | None, int]:
    """The number at this place, and the place after it; None: not known."""
    if at >= len(data) or data[at] == 0:
        return None, at
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), at + length


def encrypted(path: Path, kind: str) -> bool:
    """Whether the video needs a key: MP4's "encv", Matroska's ContentEncryption, scrambled MPEG-TS packets."""
    with path.open("rb") as file:
        head = file.read(_HEADERS)
        if kind.startswith("mov,"):
            file.seek(max(0, path.stat().st_size - _HEADERS))  # the header may come last
            return any(re.search(rb"stsd.{12}encv", data, re.DOTALL) for data in (head, file.read()))
    if kind.startswith("matroska"):
        header = head.split(b"\x1f\x43\xb6\x75", 1)[0]  # up to the first cluster
        return re.search(rb"\x6d\x80.{1,64}\x50\x35", header, re.DOTALL) is not None
    if kind == "mpegts":
        start, step = (4, 192) if head[4:5] == b"\x47" and head[188:189] != b"\x47" else (0, 188)
        packets = [head[at : at + 4] for at in range(start, len(head) - 4, step)]
        return any(packet[:1] == b"\x47" and packet[3] & 0xC0 for packet in packets[:20_000])
    return False
