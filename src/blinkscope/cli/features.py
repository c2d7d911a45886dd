"""``blinkscope features``: how outcomes can be told apart."""

from __future__ import annotations

import argparse

from blinkscope.features import FEATURES


def command(arguments: argparse.Namespace) -> int:
    width = max(len(entry.example) for entry in FEATURES.values())
    for entry in FEATURES.values():
        print(f"{entry.example:<{width}}  {entry.summary}")
    return 0
