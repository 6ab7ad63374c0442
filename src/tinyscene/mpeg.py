"""The frames of an MP3 file (MPEG audio, layer III), counted one by one.

Without a header that counts them (Xing), libsndfile estimates the length of such a file from the bit rate of its first
frames and stops there, which cuts files of variable bit rate. With such a header before the frames, it reads all.

Headers: ISO/IEC 11172-3, 2.4.2.3; ISO/IEC 13818-3 for half the rates, and MPEG 2.5 for a quarter.
"""

import mmap
import shutil
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

from tinyscene.errors import InputError

_RATES = (44_100, 48_000, 32_000)
# In MPEG 1 and in the others: kbit/s of the indices 1 to 14. Index 0, of any rate, is not followed.
_KBITS = {
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
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
    length: int
    """Bytes of the frame, with its header."""

    @property
    def xing_at(self) -> int:
        """Offset of a Xing header: behind the side information."""
        mono = self.bits >> 6 & 3 == _MONO
        return 4 + ((17 if mono else 32) if self.first else (9 if mono else 17))

    def like(self, other: "Header | None") -> bool:
        """Whether the other may be of the same file: of the same version and sample rate."""
        return other is not None and not (self.bits ^ other.bits) & _COMMON


class Frames(NamedTuple):
    """The complete frames of a file, the number that its header claims, and whether the last is cut."""

    whole: int
    claimed: int | None
    cut: bool
    begin: int
    """Offset of the first frame of sound."""
    head: Header


def counted(path: Path) -> IO[bytes] | None:
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
    if found.claimed is not None and found.claimed >= found.whole:
        return None
    copy = TemporaryFile()  # noqa: SIM115
    with path.open("rb") as file:
        file.seek(found.begin)
        copy.write(_xing(found.head, found.whole))
        shutil.copyfileobj(file, copy)
    copy.seek(0)
    return copy


@lru_cache(maxsize=256)
def header_of(four: bytes) -> Header | None:
    """The header in four bytes; None if there is none."""
    bits = int.from_bytes(four, "big")
    version, layer, kbits, rate = bits >> 19 & 3, 4 - (bits >> 17 & 3), bits >> 12 & 15, bits >> 10 & 3
    if len(four) < 4 or bits >> 21 != 0x7FF or version == 1 or layer != 3 or kbits in (0, 15) or rate == 3:
        return None
    first = version == 3
    hz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    return Header(bits, first, (144_000 if first else 72_000) * _KBITS[first][kbits - 1] // hz + (bits >> 9 & 1))


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
        while at < end:
            here = header_of(data[at : at + 4])
            if here is None or not head.like(here):
                at = _next(data, at, end, head)
            elif at + here.length > end:
                break
            else:
                count, at = count + 1, at + here.length
        return Frames(count, claimed or None, at < end, begin, head)


def _next(data: mmap.mmap, at: int, end: int, like: Header | None) -> int:
    """The start of the next frame that another one, or the end, follows: behind tags, pictures and the like."""
    while 0 <= at < end:
        if data[at : at + 3] == b"ID3":  # of 7 bits a byte, with a foot or not
            size = [byte & 127 for byte in data[at + 6 : at + 10]]
            at += 10 + sum(part << 7 * place for place, part in enumerate(reversed(size)))
        head = header_of(data[at : at + 4])
        if head is not None and (like is None or head.like(like)):
            behind = at + head.length
            if behind == end or head.like(header_of(data[behind : behind + 4])):
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
