"""``blinkscope models``: what ``--model`` takes, and what each needs installed."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec

from blinkscope.engines import SCHEMES
from blinkscope.engines.smollm2 import install_smollm2
from blinkscope.engines.toy_models import open_toy, toy_models
from blinkscope.errors import UserError


def command(arguments: argparse.Namespace) -> int:
    if arguments.install is not None:
        if arguments.install != "smollm2":
            raise UserError(
                f"there is no embedded model {arguments.install!r}; the one that can be fetched is smollm2."
            )
        print("fetching smollm2 (98 MB)", file=sys.stderr)
        install_smollm2()
        print("smollm2 is installed")
        return 0
    for scheme in SCHEMES.values():
        missing = [package for package in scheme.packages if find_spec(package) is None]
        print(f"{scheme.example:<28} {scheme.summary}{' (needs ' + scheme.needs + ')' if missing else ''}")
    print(f"{'replay:FILE':<28} recorded rollouts in place of a model")
    needs = "" if find_spec("diffusers") else " (needs pip install 'blinkscope[diffusion]')"
    print(f"{'diffusion:digits':<28} pictures: a small diffusion model of digits that ships with the package{needs}")
    print(f"{'diffusion:grammar':<28} texts of a small grammar: a masked-diffusion transformer that ships too{needs}")
    print(f"{'diffusers:FOLDER':<28} pictures: a pipeline of diffusers, or its name on the hub{needs}")
    print("\ntoy models, each with its parameters at their defaults")
    for name, description in toy_models().items():
        print(f"{open_toy(name).name}\n    {description}")
    return 0
