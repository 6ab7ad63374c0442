"""The frames of an MPEG audio file (layers I to III), counted one by one.

Without a header that counts them (Xing), libsndfile estimates the length of such a file from the bit rate of its first
frames and stops there, which cuts files of variable bit rate. With such a header before the frames, it reads all.

Headers: ISO/IEC 11172-3, 2.4.2.3; ISO/IEC 13818-3 for half the rates, and MPEG 2.5 for a quarter.
"""

import io
import mmap
from pathlib import Path
from typing import Any, NamedTuple

from tinyscene.errors import InputError

_RATES = (44_100, 48_000, 32_000)
# By (MPEG 1, layer): kbit/s of the indices 1 to 14. Index 0, of any rate, is not followed.
_KBITS = {
    (True, 1): tuple(range(32, 449, 32)),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# Common to all frames of a file: sync word, version, layer, sample rate.
_COMMON = 0xFFFE0C00
_MONO = 3
_XING_BYTES = 12


class Header(NamedTuple):
    """The four bytes before a frame."""

    bits: int
    first: bool
    """MPEG 1, rather than the versions of lower rates."""
    layer: int
    samples: int
    """Of every channel in a frame."""
    length: int
    """Bytes of the frame, with its header."""

    @property
    def xing_at(self) -> int:
        """Offset of a Xing header: behind the side information of layer III."""
        mono = self.bits >> 6 & 3 == _MONO
        return 4 + ((17 if mono else 32) if self.first else (9 if mono else 17))


class Frames(NamedTuple):
    """Complete frames of a file and their samples, the number that its header claims, and whether the last is cut."""

    whole: int
    samples: int
    claimed: int | None
    cut: bool
    begin: int
    """Offset of the first frame of sound."""
    xing: bytes
    """A frame that holds their number; empty for layers I and II, which have none."""


def counted(path: Path) -> "Behind | None":
    """The file with the number of its frames put before them; None where it has one.

    Raises:
        InputError: the file ends within a frame, or holds fewer than it claims.
    """
    found = frames_of(path)
    if found is None:
        return None
    # Some writers also count the frame that holds the number.
    if found.cut or (found.claimed or 0) > found.whole + 1:
        claimed = "its last frame is cut" if found.cut else f"its header claims {found.claimed} codec frames"
        raise InputError(f"{path}: truncated, {claimed}, the file holds {found.whole} whole; accepted: a complete file")
    stated = found.claimed is not None and found.claimed >= found.whole
    return Behind(found.xing, path, found.begin) if found.xing and not stated else None


def header_of(four: bytes) -> Header | None:
    """The header in four bytes; None if there is none."""
    bits = int.from_bytes(four, "big")
    version, layer, kbits, rate = bits >> 19 & 3, 4 - (bits >> 17 & 3), bits >> 12 & 15, bits >> 10 & 3
    if len(four) < 4 or bits >> 21 != 0x7FF or version == 1 or layer == 4 or kbits in (0, 15) or rate == 3:
        return None
    first = version == 3
    hz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 384 if layer == 1 else 576 if layer == 3 and not first else 1152
    unit = 4 if layer == 1 else 1
    length = (samples // 8 // unit * 1000 * _KBITS[first, layer][kbits - 1] // hz + (bits >> 9 & 1)) * unit
    return Header(bits, first, layer, samples, length)


def frames_of(path: Path) -> Frames | None:
    """Walk through the frames of a file; None if there are none."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = len(data) - (128 if data[-128:-125] == b"TAG" else 0)
        at = _next(data, 0, end, None)
        head = header_of(data[at : at + 4])
        if head is None:
            return None
        claimed = _claimed(data[at : at + head.length], head)
        begin = at if claimed is None else at + head.length
        count, at = 0, begin
        lengths: dict[bytes, int] = {}
        while at < end:
            four = data[at : at + 4]
            length = lengths.get(four, 0)
            if not length:
                here = header_of(four)
                if here is None or (here.bits ^ head.bits) & _COMMON:
                    # A header counts as cut by the end if its remaining bytes fit.
                    if end - at < 4 and four[: end - at] == head.bits.to_bytes(4, "big")[: end - at]:
                        break
                    at = _next(data, at, end, head)
                    continue
                length = lengths[four] = here.length
            if at + length > end:
                break
            count, at = count + 1, at + length
        xing = _xing(head, count) if head.layer == 3 else b""
        return Frames(count, head.samples, claimed or None, at < end, begin, xing)


def _next(data: mmap.mmap, at: int, end: int, like: Header | None) -> int:
    """The start of the next frame that another one, or the end, follows: behind tags, pictures and the like."""
    while 0 <= at < end:
        if data[at : at + 3] == b"ID3":  # of 7 bits a byte, with a foot or not
            size = [byte & 127 for byte in data[at + 6 : at + 10]]
            at += 10 + sum(part << 7 * place for place, part in enumerate(reversed(size)))
        head = header_of(data[at : at + 4])
        if head is not None and not (like and (head.bits ^ like.bits) & _COMMON):
            behind = at + head.length
            after = header_of(data[behind : behind + 4])
            if behind == end or (after is not None and not (head.bits ^ after.bits) & _COMMON):
                return at
        at = data.find(b"\xff", at + 1, end)
    return end


def _claimed(frame: bytes, head: Header) -> int | None:
    """The number of frames that a frame without sound states; 0 if it states none, None if it holds sound."""
    tag = frame[head.xing_at : head.xing_at + _XING_BYTES]
    if tag[:4] in (b"Xing", b"Info"):
        return int.from_bytes(tag[8:12], "big") if tag[7] & 1 else 0
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return None


def _xing(head: Header, count: int) -> bytes:
    """A frame like these without sound, long enough for the number of frames."""
    plain = head.bits & ~0xF200 | 0x10000  # no padding, no checksum
    bits = (plain | index << 12 for index in range(1, 15))
    found = (header_of(one.to_bytes(4, "big")) for one in bits)
    frame = next(one for one in found if one is not None and one.length >= one.xing_at + 120)
    body = b"Xing" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")
    return (frame.bits.to_bytes(4, "big") + bytes(frame.xing_at - 4) + body).ljust(frame.length, b"\0")


class Behind(io.RawIOBase):
    """A file from `begin` on, behind other bytes, that can be read and sought as one."""

    def __init__(self, front: bytes, path: Path, begin: int) -> None:
        self._front, self._begin, self._at = front, begin, 0
        self._file = path.open("rb")
        self._length = len(front) + path.stat().st_size - begin

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        into = memoryview(buffer).cast("B")
        front = self._front[self._at : self._at + len(into)]
        self._file.seek(self._begin + max(0, self._at - len(self._front)))
        data = front + self._file.read(len(into) - len(front))
        into[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
