"""Generated tokens per second of the transformers engine, beside the bare decode loop and ``model.generate``.

    python benchmarks/engine.py [--rows 32 64 128] [--runs 3] [--tokens 60] [--jobs-per-row 2] [--gguf FILE]

For every batch size it alternates, in one process,

engine     continuations at mixed positions of one generation, each forced off it at its first token;
bare       the limit: the same model and batch size, one prefix from the middle of those positions read once, its
           cache expanded, then nothing but forward passes and draws from the 256 largest logits;
generate   ``model.generate`` on the engine's first prefixes, with end of turn held back so that all of its rows work
           until the end: its best case;
gguf       with ``--gguf FILE``, the same continuations written by the llama.cpp engine with the weights of that file.

A rate is the batch size over the median time from one forward pass to the next while every place of the batch is
taken; a burst of other work on the machine moves it little. ``whole`` is tokens over seconds of a whole round,
reading the prefixes and the draining end of the engine's round included; ``processor_seconds`` are those of a whole
round for each token, which say more on a busy machine. The engine is held against the bare loop by
rate and against ``generate`` by whole rounds; ``gguf`` against the engine by rate. Prints one JSON object with medians
over the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from blinkscope.engines.loading import Placement, quiet
from blinkscope.engines.smollm2 import SAMPLING, load_smollm2
from blinkscope.engines.transformers import TransformersEngine
from blinkscope.language.engine import Engine, Job, Path
from blinkscope.language.sampling import Sampling

PROMPT = (
    "I live in a small flat. Should I get a cat or a dog? Think it over in a few sentences, "
    "then finish with 'My choice: cat' or 'My choice: dog'."
)


@dataclass
class Clock:
    """When each forward pass over single tokens began and ended, and how many rows it had."""

    rows: list[int] = field(default_factory=list)
    began: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    def begin(self, rows: int) -> None:
        self.rows.append(rows)
        self.began.append(self._now())

    def end(self) -> None:
        self.ended.append(self._now())

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def summary(self, rows: int) -> dict[str, float]:
        """Rate of the full steps, and the part of them that is not the model's."""
        pairs = zip(self.rows, self.rows[1:], self.began, self.began[1:], self.ended, strict=False)
        full = [(after - began, ended - began) for n, m, began, after, ended in pairs if n == m == rows]
        step, forward = (statistics.median(times) for times in zip(*full, strict=True))
        return {"rate": rows / step, "outside_model": 1 - forward / step, "full_steps": len(full)}


@contextmanager
def watching(model: Any, clock: Clock) -> Iterator[None]:
    """Passes of a transformers model."""

    def begin(module: Any, args: Any, kwargs: Any) -> None:
        rows, tokens = kwargs["input_ids"].shape
        clock.begin(rows if tokens == 1 else 0)

    hooks = [
        model.register_forward_pre_hook(begin, with_kwargs=True),
        model.register_forward_hook(lambda module, args, output: clock.end()),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def watching_llama(clock: Clock) -> Iterator[None]:
    """Passes of llama.cpp."""
    from blinkscope.engines.llama_decoder import LlamaDecoder
    from blinkscope.engines.llama_model import LlamaMemory

    step, decode = LlamaDecoder.step, LlamaMemory.decode
    rows = 0

    def stepped(decoder: Any, fed: Any, wanted: Any) -> Any:
        nonlocal rows
        rows = len(fed)
        return step(decoder, fed, wanted)

    def decoded(memory: Any, *what: Any) -> Any:
        nonlocal rows
        clock.begin(rows)
        rows = 0  # reading a prefix is no step
        logits = decode(memory, *what)
        clock.end()
        return logits

    LlamaDecoder.step, LlamaMemory.decode = stepped, decoded
    try:
        yield
    finally:
        LlamaDecoder.step, LlamaMemory.decode = step, decode


def timed(watch: Callable[[Clock], Any], rows: int, work: Callable[[], int]) -> dict[str, float]:
    """Rates of one piece of work, which returns how many tokens it generated."""
    clock = Clock()
    started, used = time.perf_counter(), time.process_time()
    with watch(clock), quiet():
        tokens = work()
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    return {**clock.summary(rows), "whole": tokens / seconds, "processor_seconds": processor / tokens}


def jobs_at_mixed_positions(engine: TransformersEngine, path: Path, sampling: Sampling, count: int) -> list[Job]:
    """Off-path continuations, dealt out evenly over the open positions in the first half of a generation."""
    score = engine.score(path, sampling)
    places = [int(s) for s in np.flatnonzero(score.off_path) if s <= len(path.tokens) // 2]
    rng = np.random.default_rng(0)
    jobs = []
    for i in range(count):
        options = score.alternatives[places[i % len(places)]]
        first = int(rng.choice(options.ids, p=options.p / options.p.sum()))
        jobs.append(Job((i,), path, places[i % len(places)], (first,), (i,)))
    return jobs


def bare(model: Any, ids: tuple[int, ...], sampling: Sampling, rows: int, steps: int) -> int:
    with torch.inference_mode():
        cache = DynamicCache()
        prompt = torch.tensor([ids], device=model.device)
        logits = model(input_ids=prompt, past_key_values=cache, logits_to_keep=1).logits[:, -1].expand(rows, -1)
        cache.batch_repeat_interleave(rows)
        for _ in range(steps):
            values, columns = torch.topk(logits, 256)
            drawn = torch.multinomial(torch.softmax(values / sampling.temperature, dim=1), 1)
            tokens = columns.gather(1, drawn)
            logits = model(input_ids=tokens, past_key_values=cache, logits_to_keep=1).logits[:, -1]
    return rows * steps


def generate(model: Any, prefixes: list[tuple[int, ...]], sampling: Sampling, steps: int) -> int:
    width = max(map(len, prefixes))
    padding = [[0] * (width - len(prefix)) for prefix in prefixes]
    ids = [[*zeros, *prefix] for zeros, prefix in zip(padding, prefixes, strict=True)]
    mask = [[*zeros, *[1] * len(prefix)] for zeros, prefix in zip(padding, prefixes, strict=True)]
    model.generate(
        torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        do_sample=True,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=0,
        max_new_tokens=steps,
        min_new_tokens=steps,
    )
    return len(prefixes) * steps


def compare(model: Any, tokenizer: Any, path: Path, sampling: Sampling, rows: int, options: Any) -> dict[str, Any]:
    """All of them at one batch size."""
    engine = TransformersEngine("benchmark", model, tokenizer, batch_bytes=2**40, batch_rows=rows)
    jobs = jobs_at_mixed_positions(engine, path, sampling, rows * options.jobs_per_row)
    kept = len(path.tokens) // 4
    steps = sampling.max_new_tokens - kept
    middle = (*path.context.ids, *path.tokens[:kept])
    prefixes = [(*path.context.ids, *path.tokens[: job.kept], *job.forced) for job in jobs[:rows]]

    def written(by: Engine) -> int:
        return sum(x.generated for x in by.continue_(jobs, sampling, 0))

    here = partial(watching, model)
    ways: dict[str, Callable[[], dict[str, float]]] = {
        "engine": lambda: timed(here, rows, lambda: written(engine)),
        "bare": lambda: timed(here, rows, lambda: bare(model, middle, sampling, rows, steps)),
        "generate": lambda: timed(here, rows, lambda: generate(model, prefixes, sampling, steps)),
    }
    if options.gguf:
        from blinkscope.engines.gguf import GgufEngine
        from blinkscope.engines.llama_model import LlamaModel

        file = LlamaModel(FilePath(options.gguf))
        llama = GgufEngine("benchmark", file, batch_bytes=2**40, batch_rows=rows)
        ways["gguf"] = lambda: timed(watching_llama, rows, lambda: written(llama))
    runs = []
    for number in range(options.runs):
        run = {name: way() for name, way in ways.items()}
        print(f"{rows} rows, run {number + 1}: {json.dumps(run)}", file=sys.stderr, flush=True)
        runs.append(run)

    def median(read: Callable[[Any], float]) -> float:
        return round(statistics.median(map(read, runs)), 4)

    rates = {
        f"{name}_{what}": median(lambda run, name=name, what=what: run[name][what])
        for name in ways
        for what in ("rate", "whole", "processor_seconds")
    }
    if options.gguf:
        rates["gguf_over_engine"] = median(lambda run: run["gguf"]["rate"] / run["engine"]["rate"])
        rates["gguf_outside_model"] = median(lambda run: run["gguf"]["outside_model"])
    return {
        "rows": rows,
        **rates,
        "engine_over_bare": median(lambda run: run["engine"]["rate"] / run["bare"]["rate"]),
        "engine_over_generate": median(lambda run: run["engine"]["whole"] / run["generate"]["whole"]),
        "outside_model": median(lambda run: run["engine"]["outside_model"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[64])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=60, help="cap of a generation")
    parser.add_argument("--jobs-per-row", type=int, default=2)
    parser.add_argument("--gguf", metavar="FILE", help="the embedded model's weights in a GGUF file")
    options = parser.parse_args()
    loaded = load_smollm2(Placement.of("auto", "auto"))
    base = TransformersEngine("smollm2", loaded.model, loaded.tokenizer)
    sampling = replace(SAMPLING, max_new_tokens=options.tokens)
    start = Path(base.encode(PROMPT), ())
    # The longest of a few generations, so that there are places to fork at.
    tries = base.continue_([Job((i,), start, 0, (), (i,)) for i in range(8)], sampling, 1)
    path = replace(start, tokens=max((done.tokens for done in tries), key=len))
    result = {
        "model": base.name,
        "device": str(loaded.model.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "context_tokens": len(start.context.ids),
        "generation_tokens": len(path.tokens),
        "cap": options.tokens,
        "runs": options.runs,
        "results": [compare(loaded.model, loaded.tokenizer, path, sampling, rows, options) for rows in options.rows],
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
