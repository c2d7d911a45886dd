"""What ``locate`` costs on the embedded model, beside resampling every token to the same stated error.

    python benchmarks/locate.py [--error 0.1] [--check]

For a handful of prompts, with both estimators and until the windows are known: continuations, generated tokens and
seconds, the share of time spent outside the model, and what free resampling at every token would have generated for the
same largest standard deviation: at row t it needs pi_t (1 - pi_t) / error^2 continuations of about N - t tokens,
reckoned from the measured curve.
``--check`` really runs that on the first prompt, in batches over all rows, until its own largest standard deviation is
at most the error. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import numpy as np

from blinkscope import Sampling, Target, Trace, locate, open_model
from blinkscope.language.engine import Context, Engine, Job, Path

PETS = r"regex:\b(cat|dog)s?\b"
QUESTIONS = (
    ("Should I get a cat or a dog for a small flat? Answer in one sentence.", PETS, 4),
    ("Which is the better pet for a small flat, a cat or a dog? Answer in one short sentence.", PETS, 1),
    ("Is a whale a fish? Answer yes or no first, then explain in one sentence.", r"regex:(?i)\b(yes|no)\b", 2),
    (
        "Name one month of the year and say why you like it in one short sentence.",
        r"regex:\b([A-Z][a-z]+(?:ary|ch|il|ay|ne|ly|st|ber))\b",
        1,
    ),
)
SAMPLING = Sampling(temperature=0.6, top_p=0.9, max_new_tokens=40)


def resampling_tokens(trace: Trace, error: float) -> float:
    """Tokens that free resampling at every row needs for the same largest standard deviation, from the curve."""
    steps = len(trace.steps)
    spread = (trace.curve[:-1] * (1 - trace.curve[:-1])).max(axis=1)
    return float((np.ceil(spread / error**2) * (steps - np.arange(steps))).sum())


def resample(engine: Engine, trace: Trace, question: tuple[str, str, int], error: float) -> dict[str, float]:
    """Free resampling for real: every row gets continuations until its own standard deviation is small enough."""
    from blinkscope.feature import Reply, label_of
    from blinkscope.features import open_feature

    prompt, spelling, seed = question
    feature = open_feature(spelling)
    context: Context = engine.encode(prompt)
    path = Path(context, tuple(step.id for step in trace.steps if step.id is not None))
    counts = [dict[str, int]() for _ in trace.steps]
    tokens, done, started = 0, 0, time.perf_counter()
    batch = 10
    while True:
        wanted = [t for t, seen in enumerate(counts) if _sd(seen) > error]
        if not wanted:
            break
        jobs = [Job((t, done + i), path, t, (), (9, t, done + i)) for t in wanted for i in range(batch)]
        for completion in engine.continue_(jobs, SAMPLING, seed):
            t = completion.job.key[0]
            text = engine.decode((*path.tokens[:t], *completion.tokens))
            label = label_of(feature, Reply(text, completion.finish == "stop"))
            counts[t][label] = counts[t].get(label, 0) + 1
            tokens += completion.generated
        done += batch
    return {"generated_tokens": tokens, "seconds": round(time.perf_counter() - started, 1)}


def _sd(seen: dict[str, int]) -> float:
    """Largest standard deviation of the shares; one more success and failure keep a unanimous pilot from stopping."""
    n = sum(seen.values())
    if n < 10:
        return 1.0
    shares = [(k + 1) / (n + 2) for k in seen.values()]
    return max((s * (1 - s) / n) ** 0.5 for s in shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--error", type=float, default=0.1)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    engine = open_model("smollm2")
    targets = {
        "unbiased": Target(error=arguments.error),
        "pooled": Target(error=arguments.error, estimator="pooled"),
        "windows": Target().changed(until="windows"),
    }
    rows = []
    for number, question in enumerate(QUESTIONS):
        prompt, feature, seed = question
        row: dict[str, object] = {"prompt": prompt}
        for name, target in targets.items():
            trace = locate(engine, prompt, feature=feature, sampling=SAMPLING, seed=seed, target=target)
            row[name] = {
                "tokens_of_the_text": len(trace.steps),
                "open_positions": len({draw.stratum for draw in trace.draws}),
                "continuations": trace.cost.continuations,
                "generated_tokens": trace.cost.generated_tokens,
                "predicted_tokens": trace.cost.predicted_tokens,
                "seconds": round(trace.cost.seconds, 1),
                "outside_the_model": round(1 - trace.cost.model_seconds / trace.cost.seconds, 3),
                "reached_max": round(trace.error["reached_max"], 3),
                "resampling_every_token": round(resampling_tokens(trace, arguments.error)),
                "windows": [(w.start, w.end, round(w.probability, 2)) for w in trace.windows()],
            }
            if arguments.check and number == 0 and name == "unbiased":
                row["resampling_run"] = resample(engine, trace, question, arguments.error)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    ratios = {
        name: statistics.median(r[name]["resampling_every_token"] / r[name]["generated_tokens"] for r in rows)  # type: ignore[index]
        for name in ("unbiased", "pooled")
    }
    print(json.dumps({"error": arguments.error, "questions": rows, "median_saving": ratios}, indent=1))


if __name__ == "__main__":
    main()
