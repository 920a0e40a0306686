"""What a server that runs for months does about memory: old models are freed, and what is freed goes back."""

import ctypes
import gc

# Of glibc's allocator, which makes up to eight heaps a core and seldom shrinks them.
ARENAS = 2
_M_ARENA_MAX = -8


def settle() -> None:
    """Call once, with everything imported and no model loaded: later collections look at what came after alone."""
    _glibc("mallopt", _M_ARENA_MAX, ARENAS)
    gc.collect()
    gc.freeze()


def collect() -> None:
    """Frees what only holds itself, such as a loaded model that nobody uses, and gives the memory back."""
    gc.collect()
    give_back()


def give_back() -> None:
    """Gives freed memory of the C heap back to the system; milliseconds, nothing on systems without glibc."""
    _glibc("malloc_trim", 0)


def _glibc(name: str, *arguments: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)
