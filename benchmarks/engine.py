"""Generated tokens per second of the transformers engine, beside the bare decode loop and ``model.generate``.

    python benchmarks/engine.py [--rows 32 64 128] [--runs 3] [--tokens 60] [--jobs-per-row 3]

For every batch size and run, in one process and alternating, it measures

engine     continuations at mixed positions of one generation, each forced off it at its first token. ``full`` counts
           the steps in which every place of the batch is taken, ``all`` the whole round with its draining end.
bare       the limit: the same model, the same batch size, one prefix in the middle of those positions read once, its
           cache expanded, then nothing but forward passes and draws from the 256 largest logits.
generate   ``model.generate`` on the same prefixes, repeated as often, with end of turn held back, so that all its
           rows work until the end: its best case.

Prints one JSON object: medians, the single runs, and the share of the engine's time that is not the model's forward.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from blinkscope.engines.loading import quiet
from blinkscope.engines.smollm2 import open_smollm2
from blinkscope.engines.transformers import TransformersEngine
from blinkscope.language.engine import Job, Path
from blinkscope.language.sampling import Sampling

PROMPT = (
    "I live in a small flat. Should I get a cat or a dog? Think it over in a few sentences, "
    "then finish with 'My choice: cat' or 'My choice: dog'."
)


@dataclass
class Clock:
    """Rows and seconds of every forward pass of one decoding step, seen through hooks of the model."""

    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def watch(self, model: Any) -> Any:
        def before(module: Any, args: Any, kwargs: Any) -> None:
            self.starts.append(time.perf_counter())
            self.rows.append(kwargs["input_ids"].shape[0])

        def after(module: Any, args: Any, output: Any) -> None:
            synchronize(model)
            self.ends.append(time.perf_counter())

        return [model.register_forward_pre_hook(before, with_kwargs=True), model.register_forward_hook(after)]


def synchronize(model: Any) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def jobs_at_mixed_positions(engine: TransformersEngine, path: Path, sampling: Sampling, count: int) -> list[Job]:
    """Off-path continuations, dealt out evenly over the first half of the generation's open positions."""
    score = engine.score(path, sampling)
    open_positions = [s for s in np.flatnonzero(score.off_path) if s <= len(path.tokens) // 2]
    rng = np.random.default_rng(0)
    jobs = []
    for i in range(count):
        s = int(open_positions[i % len(open_positions)])
        options = score.alternatives[s]
        first = int(rng.choice(options.ids, p=options.p / options.p.sum()))
        jobs.append(Job((i,), path, s, (first,), (i,)))
    return jobs


def run_engine(
    engine: TransformersEngine, model: Any, jobs: list[Job], sampling: Sampling, rows: int
) -> dict[str, float]:
    clock = Clock()
    hooks = clock.watch(model)
    started = time.perf_counter()
    generated = sum(done.generated for done in engine.continue_(jobs, sampling, 0))
    seconds = time.perf_counter() - started
    for hook in hooks:
        hook.remove()
    full = [i for i, n in enumerate(clock.rows) if n == rows]
    first, last = full[0], full[-1]
    return {
        "full": sum(clock.rows[first:last]) / (clock.starts[last] - clock.starts[first]),
        "all": generated / seconds,
        "steps_full": len(full),
        "steps": len(clock.rows),
        "outside_model": 1 - sum(e - s for s, e in zip(clock.starts, clock.ends, strict=True)) / seconds,
    }


@torch.inference_mode()
def run_bare(model: Any, ids: list[int], sampling: Sampling, rows: int, steps: int) -> float:
    cache = DynamicCache()
    logits = model(input_ids=torch.tensor([ids], device=model.device), past_key_values=cache, logits_to_keep=1).logits
    cache.batch_repeat_interleave(rows)
    logits = logits[:, -1].expand(rows, -1)
    started = time.perf_counter()
    for _ in range(steps):
        values, columns = torch.topk(logits, 256)
        law = torch.softmax(values / sampling.temperature, dim=1)
        tokens = columns.gather(1, torch.multinomial(law, 1))
        logits = model(input_ids=tokens, past_key_values=cache, logits_to_keep=1).logits[:, -1]
    synchronize(model)
    return rows * steps / (time.perf_counter() - started)


@torch.inference_mode()
def run_generate(model: Any, prefixes: list[tuple[int, ...]], sampling: Sampling, steps: int) -> float:
    width = max(map(len, prefixes))
    ids = torch.tensor([[0] * (width - len(prefix)) + list(prefix) for prefix in prefixes], device=model.device)
    mask = torch.tensor([[0] * (width - len(prefix)) + [1] * len(prefix) for prefix in prefixes], device=model.device)
    started = time.perf_counter()
    with quiet():
        model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            max_new_tokens=steps,
            min_new_tokens=steps,
        )
    synchronize(model)
    return len(prefixes) * steps / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[64])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=60, help="cap of a generation")
    parser.add_argument("--jobs-per-row", type=int, default=3)
    arguments = parser.parse_args()
    base = open_smollm2("auto", "auto", None)
    model, tokenizer = base._model, base._text.tokenizer
    sampling = replace(base.default_sampling, max_new_tokens=arguments.tokens)
    context = base.encode(PROMPT)
    # The longest of a few generations, so that there are positions to fork at.
    tries = base.continue_([Job((i,), Path(context, ()), 0, (), (i,)) for i in range(8)], sampling, 1)
    path = Path(context, max((done.tokens for done in tries), key=len))
    middle = [*context.ids, *path.tokens[: len(path.tokens) // 4]]
    steps = arguments.tokens - len(path.tokens) // 4
    table = []
    for rows in arguments.rows:
        engine = TransformersEngine("benchmark", model, tokenizer, batch_bytes=2**40, batch_rows=rows)
        jobs = jobs_at_mixed_positions(engine, path, sampling, rows * arguments.jobs_per_row)
        prefixes = [(*context.ids, *path.tokens[: job.kept], *job.forced) for job in jobs[:rows]]
        runs: list[dict[str, Any]] = []
        for i in range(arguments.runs):
            runs.append(
                {
                    "engine": run_engine(engine, model, jobs, sampling, rows),
                    "bare": run_bare(model, middle, sampling, rows, steps),
                    "generate": run_generate(model, prefixes, sampling, steps),
                }
            )
            print(f"rows {rows}, run {i + 1}: {runs[-1]}", file=sys.stderr, flush=True)
        table.append(summary(rows, runs))
    print(
        json.dumps(
            {
                "model": base.name,
                "threads": torch.get_num_threads(),
                "machine": platform.machine(),
                "torch": torch.__version__,
                "context_tokens": len(context.ids),
                "generation_tokens": len(path.tokens),
                "cap": arguments.tokens,
                "results": table,
            },
            indent=1,
        )
    )


def summary(rows: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    def median(read: Any) -> float:
        return round(statistics.median(read(run) for run in runs), 3)

    return {
        "rows": rows,
        "engine_full": median(lambda run: run["engine"]["full"]),
        "engine_all": median(lambda run: run["engine"]["all"]),
        "bare": median(lambda run: run["bare"]),
        "generate": median(lambda run: run["generate"]),
        "full_over_bare": median(lambda run: run["engine"]["full"] / run["bare"]),
        "full_over_generate": median(lambda run: run["engine"]["full"] / run["generate"]),
        "outside_model": median(lambda run: run["engine"]["outside_model"]),
        "runs": runs,
    }


if __name__ == "__main__":
    main()
