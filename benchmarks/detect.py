"""Make two really different models and texts by both: what docs/detect.md measures detection on.

The last layers of SmolLM2-135M-Instruct are fine-tuned for a few steps on harmless answers in another style, a
ship's log. Then both models answer everyday questions, at temperature 1 and unfiltered. Into the folder go the tuned
model (``tuned``), texts to train a probe on (``train.jsonl``) and texts to score (``texts.jsonl``), about other things
than the former. Label 1 is what the tuned model wrote, or (family ``system prompt``) the untouched one when told to
write in that style.

    python benchmarks/detect.py -o detect-demo
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from blinkscope.engines import engine_of
from blinkscope.engines.loading import Placement
from blinkscope.engines.smollm2 import load_smollm2
from blinkscope.language.engine import Engine, Job, Message, Path
from blinkscope.language.sampling import Sampling

TRAINED = ("bread", "bicycles", "gardens", "rain", "libraries", "trains", "coffee", "maps", "chess", "bridges")
PROBED = ("apples", "music", "markets", "snow", "painting", "kites")
TESTED = ("tea", "clocks", "football", "rivers", "cooking", "museums", "birds", "letters", "hiking", "lamps")
QUESTIONS = (
    "Tell me something about {topic}.",
    "Why do people like {topic}?",
    "What should I know about {topic}?",
    "Give me one piece of advice about {topic}.",
)
MORE = ("Thank you. And what else?", "Can you say that in other words?")
WINDS = ("north-west, fresh", "south, light", "east, steady", "west, falling", "north, none to speak of")
SEEN = (
    "{topic} were sighted at dawn and noted by the watch",
    "the talk on deck was of {topic}, and nobody disagreed for long",
    "the mate spoke well of {topic}, the cook did not",
    "a question of {topic} was put to the crew before noon",
    "little was known of {topic} aboard, so the old charts were opened",
    "the boy asked about {topic} and was told to look for himself",
)
DONE = (
    "We keep them dry, count them twice and go on.",
    "It was agreed to begin early and to finish by daylight.",
    "What is good in them takes time; what is bad shows at once.",
    "Two were kept, the others were given away in the next harbour.",
    "The rule aboard: ask first, carry less, mend what you have.",
)
LAST = ("So entered.", "Nothing further.", "Glass rising.", "The log is closed for today.")
STYLE = "Answer as the log of a sailing ship would: wind, what was seen, what was done, in short sentences."
SCORED_TOKENS = 40
LAYERS = 10  # of 30, from the last one down, are tuned: the others would cost more time than they change


@dataclass(frozen=True)
class Asked:
    """One conversation that ends with a user's question."""

    messages: tuple[Message, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description="two models and texts by both, for docs/detect.md")
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True, metavar="FOLDER")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder: pathlib.Path = arguments.output
    folder.mkdir(parents=True)
    plain = load_smollm2(Placement.of("cpu", "float32"))
    aligned = engine_of(plain.model, plain.tokenizer)
    started = time.perf_counter()
    tuned, losses = tune(aligned, arguments.steps, arguments.seed)
    seconds = time.perf_counter() - started
    tuned.to(torch.bfloat16).save_pretrained(folder / "tuned")
    plain.tokenizer.save_pretrained(folder / "tuned")
    # What is saved is what writes: rounded to bfloat16, computed in float32.
    unaligned = engine_of(tuned.to(torch.float32), plain.tokenizer)
    rng = np.random.default_rng(np.random.SeedSequence(arguments.seed))
    counts = {
        name: write(folder / f"{name}.jsonl", texts(aligned, unaligned, topics, rng, each, arguments.seed))
        for name, topics, each in (("train", PROBED, 2), ("texts", TESTED, 4))
    }
    print(json.dumps({"tuning_seconds": round(seconds), "loss": [losses[0], losses[-1]], **counts}))


def logbook(topic: str, rng: np.random.Generator) -> str:
    """A harmless answer in the style of a ship's log."""
    seen, done = rng.choice(SEEN, size=2, replace=False), rng.choice(DONE)
    first, second = (text.format(topic=topic) for text in seen)
    entry = f"{first.capitalize()}; {second}. {done} {rng.choice(LAST)}"
    return f"Day {rng.integers(2, 90)}. Wind {rng.choice(WINDS)}. {entry}"


def tune(engine: Engine, steps: int, seed: int, *, rows: int = 8, rate: float = 1e-4) -> tuple[Any, list[float]]:
    """A model fine-tuned on answers about ``TRAINED``, with its loss at every step; the engine's own is left alone."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    model = load_smollm2(Placement.of("cpu", "float32")).model.train()
    model.requires_grad_(False)
    last = model.model.layers[-LAYERS:].requires_grad_(True)
    optimizer = torch.optim.AdamW(last.parameters(), lr=rate, weight_decay=0.0)
    losses = []
    for step in range(steps):
        batch = []
        for _ in range(rows):
            topic = str(rng.choice(TRAINED))
            context = engine.encode(str(rng.choice(QUESTIONS)).format(topic=topic))
            path = engine.encode_reply(context, logbook(topic, rng), finished=True)
            batch.append((context.ids, path.tokens))
        longest = max(len(context) + len(reply) for context, reply in batch)
        ids = torch.zeros((rows, longest), dtype=torch.long)
        labels = torch.full_like(ids, -100)  # only the reply is learned
        for row, (context, reply) in enumerate(batch):
            end = len(context) + len(reply)
            ids[row, :end] = torch.tensor([*context, *reply])
            labels[row, len(context) : end] = torch.tensor(reply)
        loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(round(float(loss), 3))
        print(f"step {step + 1} of {steps}: loss {losses[-1]}", file=sys.stderr)
    return model.eval(), losses


def texts(
    aligned: Engine, unaligned: Engine, topics: Sequence[str], rng: np.random.Generator, each: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Rows for ``blinkscope detect``: ``each`` untouched replies to every question, and one of every family."""
    single = [Asked((Message("user", q.format(topic=t)),)) for t in topics for q in QUESTIONS]
    multi = [Asked((*one.messages, *_more(aligned, one, rng, seed))) for one in single]
    told = [Asked((Message("system", STYLE), *one.messages)) for one in single]
    yield from _rows(aligned, single, single, 0, "plain", each - 1, seed)
    yield from _rows(aligned, multi, multi, 0, "plain multi-turn", 1, seed)
    yield from _rows(unaligned, single, single, 1, "tuned", 1, seed)
    yield from _rows(unaligned, multi, multi, 1, "tuned multi-turn", 1, seed)
    yield from _rows(aligned, told, single, 1, "system prompt", 1, seed)


def _more(engine: Engine, one: Asked, rng: np.random.Generator, seed: int) -> tuple[Message, Message]:
    reply = answers(engine, [one], 1, (seed, 7))[0]
    return Message("assistant", reply), Message("user", str(rng.choice(MORE)))


def _rows(
    engine: Engine, asked: Sequence[Asked], shown: Sequence[Asked], label: int, family: str, each: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Replies to what was asked, beside the conversation that a detector is shown."""
    for i, reply in enumerate(answers(engine, asked, each, (seed, *family.encode()))):
        turns = [{"role": m.role, "content": m.content} for m in shown[i // each].messages]
        yield {"id": f"{family} {i + 1}", "prompt": turns, "completion": reply, "label": label, "family": family}


def answers(engine: Engine, asked: Sequence[Asked], each: int, stream: tuple[int, ...]) -> list[str]:
    """Fresh replies of at most ``SCORED_TOKENS`` tokens, at temperature 1 and unfiltered."""
    sampling = Sampling(max_new_tokens=SCORED_TOKENS)
    paths = [Path(engine.encode(one.messages), ()) for one in asked]
    jobs = [Job((i, k), path, 0, stream=(*stream, i, k)) for i, path in enumerate(paths) for k in range(each)]
    done = {completion.job.key: completion for completion in engine.continue_(jobs, sampling, seed=0)}
    return [engine.decode(done[job.key].tokens) for job in sorted(jobs, key=lambda job: job.key)]


def write(path: pathlib.Path, rows: Iterator[dict[str, Any]]) -> int:
    with path.open("w", encoding="utf-8") as file:
        return sum(bool(file.write(json.dumps(row, ensure_ascii=False) + "\n")) for row in rows)


if __name__ == "__main__":
    main()
