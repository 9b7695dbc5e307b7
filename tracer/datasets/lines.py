"""Lines of text files, plain or zstandard, with a bound on how much is held at once."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from tracer.errors import DatasetError

__all__ = ["MAX_LINE_BYTES", "text_lines"]

MAX_LINE_BYTES = 64 * 1024 * 1024

# zstandard gives back all that one piece of input expands to, at most 32 KiB per byte, so the
# size of the piece is what bounds the memory: 1 KiB becomes 32 MiB at worst.
_PIECE_BYTES = 1024
_BOM = b"\xef\xbb\xbf"


class _ZstdStream(io.RawIOBase):
    """What a zstandard file unpacks to, frame after frame.

    The library's own ``stream_reader`` takes a file cut short for a file that ends.
    """

    def __init__(self, packed: BinaryIO) -> None:
        super().__init__()
        self._packed = packed
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._inside = False  # a frame has begun and its end has not been met
        self._rest = b""  # input behind the end of a frame
        self._out = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer``; 0 at the end.

        Raises:
            zstandard.ZstdError: the data is damaged.
            EOFError: the file ends inside a frame.
        """
        while not self._out and self._unpack():
            pass
        taken = min(len(buffer), len(self._out))
        buffer[:taken] = self._out[:taken]
        self._out = self._out[taken:]
        return taken

    def _unpack(self) -> bool:
        piece = self._rest or self._packed.read(_PIECE_BYTES)
        self._rest = b""
        if not piece:
            if self._inside:
                raise EOFError
            return False
        self._out = memoryview(self._frame.decompress(piece))
        self._inside = not self._frame.eof
        if self._frame.eof:
            self._rest = self._frame.unused_data
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        return True


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        if path.suffix.lower() == ".zst":
            yield cast("BinaryIO", io.BufferedReader(_ZstdStream(file), 1024 * 1024))
        else:
            yield file


def text_lines(path: Path, most: int | None = None) -> Iterator[tuple[int, str]]:
    r"""Yield the file's lines with their numbers from 1, line ends kept, without a BOM.

    Only ``\n`` ends a line. A file named ``.zst`` is unpacked on the way.

    Raises:
        DatasetError: unreadable, damaged, not UTF-8, or a line longer than ``most`` bytes (64 MiB).
    """
    number = 0
    most = MAX_LINE_BYTES if most is None else most
    try:
        with _opened(path) as file:
            while raw := file.readline(most + 1):
                number += 1
                if len(raw) > most:
                    raise DatasetError(
                        f"{path}, line {number}: longer than {most} bytes",
                        "write one record per line.",
                    )
                yield number, (raw.removeprefix(_BOM) if number == 1 else raw).decode()
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}, line {number}: not UTF-8", "convert the file to UTF-8."
        ) from error
    except zstandard.ZstdError as error:
        raise DatasetError(f"{path} is not a sound zstandard file: {error}") from error
    except EOFError as error:
        raise DatasetError(f"{path} is cut short: its last zstandard frame has no end") from error
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
