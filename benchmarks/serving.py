"""What it costs to go through a server, beside a bare client that sends the same requests.

    python -m benchmarks.serving [--runs 3] [--continuations 96] [--flight 10000]

flight   continuations in flight at a time to a local server that answers everything after 50 ms: the client's memory,
         its CPU time for each continuation, and how many it finishes in a second. The server is as much Python as the
         client and shares its machine, so the last number is of both.
served   llama.cpp's own server on the embedded model: off-path continuations of one generation through the engine, and
         the same requests from a bare asyncio client with the same number in flight, in turns, each from a cold cache
         of prompts of its own. Rates are medians over the runs; ``ratio`` is the engine's over the bare client's.
         ``cache_hits`` is the share of prompt tokens that the server took from its cache.

Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import aiohttp

from blinkscope.engines.http import HttpEngine, open_http
from blinkscope.language.engine import Job, Path
from blinkscope.language.sampling import Sampling

PROMPT = "Should I get a cat or a dog for a small flat? Answer in a few sentences."
LAW = Sampling(temperature=0.6, top_p=0.9, max_new_tokens=48)
LATENCY = 0.05


@contextmanager
def process(module: str, *arguments: str) -> Iterator[str]:
    """A server in a process of its own; its address."""
    command = [sys.executable, "-m", module, *arguments]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()


def flight(at_a_time: int) -> dict[str, Any]:
    """Many continuations in flight, each a request of its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with process("tests.engines.fake_server", "--canned", "--latency", str(LATENCY)) as url:
        engine = open_http(f"{url}?concurrency={at_a_time}&dialect=vllm")
        start = Path(engine.encode(PROMPT), ())
        jobs = [Job((i,), start, 0, (2,), (1, i, 0)) for i in range(at_a_time)]
        began, cpu = time.perf_counter(), time.process_time()
        count = sum(1 for _ in engine.continue_(jobs, Sampling(max_new_tokens=64), 0))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "at_a_time": at_a_time,
        "continuations": count,
        "latency_ms": 1000 * LATENCY,
        "cpu_ms_each": round(1000 * cpu / count, 3),
        "cpu_s_per_thousand": round(1000 * cpu / count, 2),
        "each_second": round(count / seconds),
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def jobs_of(engine: HttpEngine, run: int, count: int) -> list[Job]:
    """Off-path continuations of a generation of its own, eight at a position."""
    start = Path(engine.encode(f"{PROMPT} ({run})"), ())
    (whole,) = engine.continue_([Job((), start, 0, (), (0, run))], LAW, 0)
    path = Path(start.context, whole.tokens[:-1])
    score = engine.score(path, LAW)
    open_ = [s for s, other in enumerate(score.alternatives) if len(other.ids)]
    places = [(open_[(i // 8) % len(open_)], i % 8) for i in range(count)]
    forced = {s: int(score.alternatives[s].ids[0]) for s in open_}
    return [Job((s, i), path, s, (forced[s],), (1, s, i)) for s, i in dict.fromkeys(places)]


async def bare(url: str, bodies: Sequence[dict[str, Any]], at_a_time: int) -> list[Any]:
    """The same requests without anything around them."""
    gate = asyncio.Semaphore(at_a_time)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:

        async def one(body: dict[str, Any]) -> Any:
            async with gate, session.post(f"{url}/completion", json=body) as answer:
                return await answer.json()

        return list(await asyncio.gather(*map(one, bodies)))


def served(runs: int, count: int) -> dict[str, Any]:
    """The engine and the bare client in turns."""
    rates: dict[str, list[float]] = {"engine": [], "bare": []}
    requests: dict[str, list[float]] = {"engine": [], "bare": []}
    cpu: list[float] = []
    cached = prompt = 0
    with process("tests.engines.llama") as url:
        engine = open_http(url)
        for run in range(2 * runs):
            jobs = jobs_of(engine, run, count)
            groups = engine.groups(jobs, LAW, run)
            bodies = [engine.request(group, LAW).body for group in groups]
            name = ("engine", "bare")[run % 2]
            began, own = time.perf_counter(), time.process_time()
            if name == "engine":
                tokens = sum(done.generated for done in engine.continue_(jobs, LAW, run))
                cpu.append(1000 * (time.process_time() - own) / len(jobs))
            else:
                answers = asyncio.run(bare(url, bodies, engine.room))
                children = [child for answer in answers for child in (answer if isinstance(answer, list) else [answer])]
                tokens = sum(child["tokens_predicted"] for child in children)
                cached += sum(child["timings"]["cache_n"] for child in children)
                prompt += sum(child["tokens_evaluated"] for child in children)
            seconds = time.perf_counter() - began
            rates[name].append(tokens / seconds)
            requests[name].append(len(groups) / seconds)
    found = {
        name: {
            "tokens_per_second": round(statistics.median(rates[name]), 1),
            "requests_per_second": round(statistics.median(requests[name]), 2),
        }
        for name in rates
    }
    ratio = statistics.median(rates["engine"]) / statistics.median(rates["bare"])
    return {
        **found,
        "ratio": round(ratio, 3),
        "cpu_ms_each": round(statistics.median(cpu), 2),
        "cache_hits": round(cached / prompt, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--continuations", type=int, default=96)
    parser.add_argument("--flight", type=int, default=10_000)
    given = parser.parse_args()
    found = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "flight": flight(given.flight),
        "served": served(given.runs, given.continuations),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
