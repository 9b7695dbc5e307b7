"""How much an import may unpack: its files come from anyone, and small ones can get very large."""

from dataclasses import dataclass
from pathlib import Path

from tracer.errors import InputError

__all__ = ["LABEL_BYTES", "MOST_RUN_BYTES", "REQUEST_BYTES", "Unpacked"]

# Rows lie in memory, and once more while they are sorted: a bit over 50 bytes for each and 6 for
# each choice. The default holds 40 million rows of k = 8; what needs more has an option.
_MOST_UNPACKED = 4_000_000_000
# A request is described by Python objects, a label is one more.
REQUEST_BYTES = 1024
LABEL_BYTES = 128
# run.json names layers and settings.
MOST_RUN_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class Unpacked:
    """What the files of one import came to so far, in bytes of memory."""

    most: int = _MOST_UNPACKED
    used: int = 0

    def take(self, path: Path, num_bytes: int) -> None:
        """Count what is about to be read.

        Raises:
            InputError: with it the import is beyond ``most``.
        """
        self.used += num_bytes
        if self.used > self.most:
            raise InputError(
                f"{path} unpacks to too much: with it this import is beyond"
                f" {self.most / 1e9:g} GB of rows",
                "import it in parts, as runs of their own, or raise --max-gb where the machine has"
                " four times that memory.",
            )
