"""Keeping freed memory: on CPU, the large gradients of each step otherwise cost a page fault for every 4 KiB."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt, https://man7.org/linux/man-pages/man3/mallopt.3.html"""


def keep_freed_memory() -> None:
    """Tell glibc to serve large blocks from the heap and not to give freed memory back; elsewhere do nothing."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
