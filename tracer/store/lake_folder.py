"""Which folders are lakes, and which could be."""

from pathlib import Path

from tracer.errors import InputError

__all__ = ["absolute_folder", "is_lake"]


def is_lake(root: Path) -> bool:
    """Whether a lake is at ``root``: its `runs` table is made last."""
    return any((root / "runs" / "_delta_log").glob("*.json"))


def absolute_folder(path: Path | str) -> Path:
    """The lake's folder, if delta-rs can work in it.

    Raises:
        InputError: a URL, or characters that delta-rs does not find again.
    """
    if "://" in str(path) or str(path).startswith(("s3:", "gs:", "az:")):
        raise InputError(
            f"{path} is not a folder of this machine", "this version keeps lakes in folders."
        )
    root = Path(path).absolute()
    bad = {c for c in str(root) if c in "%[]\\" or not c.isprintable()}
    if bad:
        raise InputError(
            f"{path} cannot be a lake: its full path contains {' '.join(map(repr, sorted(bad)))}",
            "use a folder without '%', '[', ']', backslashes and control characters.",
        )
    return root
