"""``blinkscope train``: make a small model that ships with the package again."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

TRAINED = {"digits": "blinkscope.diffusion.train_digits", "grammar": "blinkscope.diffusion.train_grammar"}
"""The module of each model that can be trained, with ``check``, ``train`` and ``save``."""


def command(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import Progress

    module = import_module(TRAINED[arguments.name])
    folder = Path(arguments.output)
    module.check(folder)
    with Progress(console=Console(stderr=True)) as bar:
        tasks = {}

        def watch(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=of)

        model = module.train(arguments.seed, watch=watch)
    module.save(folder, model)
    print(json.dumps(model.report, indent=2))
    return 0
