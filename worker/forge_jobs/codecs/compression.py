"""Compressed payloads: zlib or Zstandard around what another codec writes.

zlib is in every Python. Zstandard is quicker and packs better; Python has it from 3.14 on, and before that the extra
`zstd` brings backports.zstd, which is the same module for older Pythons, by its author.
"""

import importlib
import zlib
from typing import Any, Literal

from forge_jobs.codecs.wrapping import Wrapping
from forge_jobs.errors import InvalidInput, MissingCodec

MAGIC = b"\xc1C"  # neither JSON nor MessagePack begins with this byte
AS_IT_IS, ZLIB, ZSTD = b"-", b"z", b"s"
METHODS = ("zlib", "zstd")
LEAST = 512  # bytes below which packing costs more than it saves
MOST = 64 * 1024 * 1024  # bytes that a payload may have when it is unpacked
ZLIB_LEVEL, ZSTD_LEVEL = 6, 3  # what both think best of size and time


class Compressed(Wrapping):
    """Packs payloads of at least `least` bytes, and unpacks any that have no more than `most` bytes then."""

    def __init__(self, inner: str, method: Literal["zlib", "zstd"], least: int, most: int) -> None:
        self.inner = inner
        self._method, self._least, self._most = method, least, most
        self._zstd: Any = _zstd() if method == "zstd" else None

    def wrap(self, payload: bytes) -> bytes:
        """Return the payload packed, or as it is where that is shorter. Raises ValueError for one that is too large."""
        if len(payload) > self._most:
            raise ValueError(
                f"it has {len(payload):,} bytes before it is compressed, allowed are {self._most:,}"
            )
        if len(payload) >= self._least:
            packed = (
                ZLIB + zlib.compress(payload, ZLIB_LEVEL)
                if self._method == "zlib"
                else ZSTD + self._zstd.compress(payload, ZSTD_LEVEL)
            )
            if len(packed) <= len(payload):
                return MAGIC + packed
        return MAGIC + AS_IT_IS + payload

    def unwrap(self, payload: bytes) -> bytes:
        """Return what was packed, by whichever method. Raises ValueError when it is damaged or too large, and never makes more of it."""
        method, packed = payload[len(MAGIC) : len(MAGIC) + 1], payload[len(MAGIC) + 1 :]
        if payload.startswith(MAGIC):
            match method:
                case b"-":
                    return self._whole(packed, ended=True)
                case b"z":
                    return self._unzip(packed)
                case b"s":
                    return self._unzstd(packed)
        raise ValueError("it is not compressed, or damaged")

    def _unzip(self, packed: bytes) -> bytes:
        decompressor = zlib.decompressobj()
        try:
            unpacked = decompressor.decompress(packed, self._most + 1)
        except zlib.error:
            raise ValueError("it is damaged") from None
        return self._whole(unpacked, ended=decompressor.eof and not decompressor.unused_data)

    def _unzstd(self, packed: bytes) -> bytes:
        zstd = self._zstd = self._zstd or _zstd()
        decompressor = zstd.ZstdDecompressor()
        try:
            unpacked = decompressor.decompress(packed, self._most + 1)
        except zstd.ZstdError:
            raise ValueError("it is damaged") from None
        return self._whole(unpacked, ended=decompressor.eof and not decompressor.unused_data)

    def _whole(self, unpacked: bytes, *, ended: bool) -> bytes:
        if len(unpacked) > self._most:
            raise ValueError(
                f"it has more than {self._most:,} bytes when it is unpacked, which is not allowed"
            )
        if not ended:
            raise ValueError("it is damaged")
        return unpacked

    def __repr__(self) -> str:
        return f"<Compressed {self.inner!r} by {self._method}>"


def compressed(
    inner: str = "json", *, method: Literal["zlib", "zstd"] = "zlib", least: int = LEAST, most: int = MOST
) -> Compressed:
    """Return a codec, to be registered, that compresses what the codec `inner` writes.

    Payloads of fewer than `least` bytes stay as they are, and none may have more than `most` bytes before it is compressed
    or when it is unpacked. What either method has packed is unpacked, whichever `method` packs now. Raises InvalidInput.
    """
    if method not in METHODS:
        raise InvalidInput(f"method of compressed is {method!r}, allowed is one of {', '.join(METHODS)}.")
    for name, value in (("least", least), ("most", most)):
        if type(value) is not int or value < 0:
            raise InvalidInput(f"{name} of compressed is {value!r}, allowed is a number of bytes, 0 or more.")
    return Compressed(inner, method, least, most)


def _zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            pass
    raise MissingCodec(
        "zstd needs Python 3.14 or backports.zstd, which is not installed; install forge-jobs[zstd]."
    )
