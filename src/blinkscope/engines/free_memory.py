"""How much memory keys and values may take where nobody says."""

from __future__ import annotations

import psutil  # type: ignore[import-untyped]


def free_bytes() -> int:
    """A quarter of the machine's free memory, at most 4 GiB."""
    return min(int(psutil.virtual_memory().available) // 4, 4 * 2**30)
