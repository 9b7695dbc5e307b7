"""Functions that numba compiles, whatever becomes of the cache of their machine code.

Compiled at the first call, for a second or two. numba keeps the machine code in a cache beside the
file of the function or, where that is read-only, in ``NUMBA_CACHE_DIR`` or the user's cache folder.
Where none of them can be written, each process compiles for itself.
"""

from collections.abc import Callable
from typing import Any

import numba
from llvmlite.binding import ffi

__all__ = ["Kernel"]


def _mend_llvmlite() -> None:
    """Let llvmlite's handle of its library say that it has no ``__dict__``.

    It makes a function of any name that it is asked for. vLLM asks everything in every loaded
    module for its ``__dict__`` when a CPU engine starts (0.32, ``triton_utils.dispatcher``) and
    fails at that function.
    """
    handle = getattr(ffi, "_lib_wrapper", None)
    find = getattr(handle, "__getattr__", None)
    if handle is None or find is None:  # another llvmlite
        return

    def find_function(self: Any, name: str) -> Any:
        if name == "__dict__":
            raise AttributeError(name)
        return find(self, name)

    handle.__getattr__ = find_function


_mend_llvmlite()


class Kernel:
    """A compiled function that runs whatever becomes of the cache of its machine code."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        try:
            self._compiled = numba.njit(cache=True, nogil=True)(function)
        except RuntimeError:  # no folder to keep it in
            self._compiled = numba.njit(nogil=True)(function)

    def __call__(self, *arguments: Any) -> Any:
        """Run it, compiled anew where the cache cannot be used."""
        try:
            return self._compiled(*arguments)
        except Exception:  # noqa: BLE001 - a full disk, a damaged file; the loops raise nothing
            self._compiled = numba.njit(nogil=True)(self._function)
            return self._compiled(*arguments)
