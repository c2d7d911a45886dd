"""A language model behind one or several servers: token ids in, token ids out, everything else on this side.

The law of the next token is made here, from raw log-probabilities at temperature 1 (``returned.py``), so that it is the
same whatever the server's own conventions are. First tokens off a path are drawn here too and stand at the end of the
prefix that is sent; a bias on the server's side would act on every token after them as well. Draws are grouped by
prefix, so that a server computes each prefix once, and a job's seed follows from its stream alone: children of one
request have neighbouring seeds, so replicates that stand in a row share a request, and would draw the same without it.
"""

from __future__ import annotations

import asyncio
import hashlib
import queue
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np

from blinkscope.engines.places import LISTED, is_settled, score_path, to_list
from blinkscope.engines.requests import SEEDS, Group, before_question, completion, grouped, is_over, said, up_to_its_end
from blinkscope.engines.returned import Returned, law_of
from blinkscope.engines.rows import Rules
from blinkscope.engines.servers.address import read_servers
from blinkscope.engines.servers.checked import checked
from blinkscope.engines.servers.completions import Completions, CompletionsText
from blinkscope.engines.servers.dialect import (
    Call,
    Dialect,
    Drift,
    Facts,
    Order,
    ServerWords,
    TextDialect,
    Written,
    short,
)
from blinkscope.engines.servers.opening import meet
from blinkscope.engines.servers.pool import Pool
from blinkscope.engines.servers.tokenizer import ServerTokenizer
from blinkscope.engines.token_text import TokenText
from blinkscope.engines.window import ContextWindow, most_tokens
from blinkscope.engines.wording import Wording
from blinkscope.errors import EngineError
from blinkscope.language.engine import Ask, Completion, Job, Path, Score
from blinkscope.language.sampling import Sampling

REMEMBERED = 16  # whole replies whose places are kept as the server told them while it wrote
DRIFTED = (
    "the server takes text only and splits this one into other tokens than those that it was written in; each prefix "
    "was scored as the server reads it."
)
CALLS, CALLS_SECONDS = 256, 0.05  # requests begun at a time, and the pause after them: each may be a new connection
TRIES = 8  # draws of one token until one is found that is not the end of a turn
_GREEDY = Sampling(temperature=0)
_RAW = Sampling()


def open_http(spec: str, keys: Mapping[str, str] | None = None) -> HttpEngine:
    """The engine of the servers that ``--model SPEC`` names; their first answers say what they are.

    keys : by host; those that this process finds where None.
    """
    servers = read_servers(spec, keys)
    pool = Pool(servers)
    dialect, facts = meet(pool)
    if isinstance(dialect, Completions):
        return HttpEngine(pool, dialect, facts, CompletionsText(dialect, facts, pool.ask_any))
    text = TokenText(ServerTokenizer(cast(TextDialect, dialect), facts, pool.ask_any), set(facts.ends))
    if servers.tokenizer is not None:
        return HttpEngine(pool, dialect, facts, checked(servers.tokenizer, text))
    if facts.template:
        text.ends.add(text.closing)
    return HttpEngine(pool, dialect, facts, text)


class HttpEngine(Wording[ServerWords]):
    """A server's model behind the ``Engine`` protocol.

    Parameters
    ----------
    pool : the servers, all with the same model.
    text : how words become ids; the server's own tokenizer, or one on this side.
    """

    items_at_once = 4
    """Items of a study that may be worked on side by side, so that one that ends a round leaves no server idle."""

    def __init__(self, pool: Pool, dialect: Dialect, facts: Facts, text: ServerWords) -> None:
        super().__init__(text, ContextWindow(facts.context_window, "server"))
        self._pool, self._dialect, self._facts = pool, dialect, facts
        self._drifted: set[Path] = set()
        self._seen: OrderedDict[tuple[int, ...], tuple[Returned, ...]] = OrderedDict()

    @property
    def name(self) -> str:
        """The model by the server's name for it: where the server stands is no part of what was asked."""
        return f"server:{short(self._facts.model)}"

    @property
    def default_sampling(self) -> Sampling:
        return _RAW

    @property
    def names_tokens(self) -> bool:
        return isinstance(self._dialect, Completions)

    def learn(self, pieces: Iterable[str]) -> None:
        if isinstance(self._dialect, Completions):
            for piece in pieces:
                self._dialect.numbers.of(piece)

    def score(self, path: Path, sampling: Sampling) -> Score:
        self._window.check(len(path.context.ids) + len(path.tokens))
        places = self._pool.run(self._places(path, sampling))
        drifted = (DRIFTED,) if path in self._drifted else ()
        return score_path(places, path.tokens, sampling, self._facts.vocabulary, drifted)

    def continue_(self, jobs: Iterable[Job], sampling: Sampling, seed: int) -> Iterator[Completion]:
        rules = Rules(sampling, seed, frozenset(self._text.ends), self.decode)
        groups: list[Group] = []
        waiting: list[Job] = []
        for job in jobs:
            self._window.check(most_tokens(job, sampling))
            if not is_over(job, rules):
                waiting.append(job)
            elif job.ask is None:
                yield completion(job, *self._reply(job, Written((), ended=False), rules))
            else:
                groups.append(Group((job,), 0, 0))
        groups += self.groups(waiting, sampling, seed)
        if groups:
            yield from self._all(groups, rules)

    def groups(self, jobs: Sequence[Job], sampling: Sampling, seed: int) -> list[Group]:
        """Jobs as requests, in the order in which a server's prefix cache likes them."""
        return grouped(jobs, sampling, seed, most=self._facts.most_children, bits=self._dialect.seed_bits)

    def request(self, group: Group, sampling: Sampling) -> Call[list[Written]]:
        """What is sent for a group."""
        first = group.jobs[0]
        given = said(first)
        # A whole reply on its own may be the text that is looked into: it is scored while it is written.
        alone = not given and len(group.jobs) == 1 and self._tells(sampling)
        listed = self._listed(0, sampling) if alone else 0
        ids = (*first.path.context.ids, *given)
        return self._dialect.write(Order(ids, len(group.jobs), group.cap, sampling, group.seed, listed), self._facts)

    @property
    def room(self) -> int:
        """Continuations that the servers are given at a time."""
        return sum(endpoint.room for endpoint in self._pool.endpoints)

    def _all(self, groups: Sequence[Group], rules: Rules) -> Iterator[Completion]:
        """Every group's completions as they come; the rest is called off where the caller leaves."""
        done: queue.SimpleQueue[Completion | BaseException | None] = queue.SimpleQueue()
        work = self._pool.start(self._dispatch(groups, rules, done))
        try:
            while (item := done.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
            work.result()  # where something else went wrong
        finally:
            work.cancel()

    async def _dispatch(self, groups: Sequence[Group], rules: Rules, done: Any) -> None:
        """Keep the servers' places filled, in the order of the groups."""
        room = self.room
        left, freed = room, asyncio.Event()
        running: set[asyncio.Task[None]] = set()
        failed: list[BaseException] = []
        begun = 0

        def finished(task: asyncio.Task[None], weight: int) -> None:
            nonlocal left
            left += weight
            running.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                failed.append(error)
            freed.set()

        try:
            for group in groups:
                weight = min(len(group.jobs), room)
                while left < weight and not failed:
                    freed.clear()
                    await freed.wait()
                if failed:
                    break
                left -= weight
                begun += 1
                if begun % CALLS == 0:
                    await asyncio.sleep(CALLS_SECONDS)
                task = asyncio.create_task(self._group(group, rules, done))
                running.add(task)
                task.add_done_callback(partial(finished, weight=weight))
            while running and not failed:
                freed.clear()
                await freed.wait()
        finally:
            for task in tuple(running):
                task.cancel()
            done.put(failed[0] if failed else None)

    async def _group(self, group: Group, rules: Rules, done: Any) -> None:
        """One request, and the follow-up question of each of its continuations."""
        first = group.jobs[0]
        written = [Written((), ended=False)]
        if group.cap:
            call = self.request(group, rules.sampling)
            written = await self._pool.send(call, self._affinity(first), len(group.jobs))
        if written[0].places is not None:
            self._remember((*first.path.context.ids, *said(first), *written[0].tokens), written[0].places)
        await asyncio.gather(*(self._conclude(*pair, rules, done) for pair in zip(group.jobs, written, strict=True)))

    async def _conclude(self, job: Job, written: Written, rules: Rules, done: Any) -> None:
        """One continuation up to its end, with its follow-up question."""
        # Texts are looked up in another thread: it may take a request, and those are this thread's work.
        known = not written.ended or bool(self._text.ends.intersection(written.tokens[-1:]))
        if known and not rules.sampling.stop:
            tokens, stopped = self._reply(job, written, rules)
        else:
            tokens, stopped = await asyncio.to_thread(self._reply, job, written, rules)
        answer, asked = None, 0
        if job.ask is not None:
            answer, asked = await self._answer(job, job.ask, tokens)
        p = [float("nan")] * len(tokens)
        for i, place in enumerate(written.places or ()):
            p[i : i + 1] = [self._recorded(place, token, rules.sampling) for token in tokens[i : i + 1]]
        done.put(completion(job, tokens, stopped, p, answer, asked))

    def _tells(self, sampling: Sampling) -> bool:
        """Whether what the server says while it writes is what it would say at temperature 1 without filter."""
        return self._facts.raw or (sampling.temperature == 1 and not sampling.truncates)

    def _remember(self, ids: tuple[int, ...], places: tuple[Returned, ...]) -> None:
        """Keep what was said while a reply was written: scoring it then asks for what is missing only."""
        self._seen[ids] = places
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def _affinity(self, job: Job) -> bytes:
        """The prefix whose cache a job can use."""
        return _digest((*job.path.context.ids, *job.path.tokens[: job.kept]))

    def _reply(self, job: Job, written: Written, rules: Rules) -> tuple[tuple[int, ...], bool]:
        """The tokens of a continuation up to its end, and whether it came to one."""
        tokens, ends = written.tokens, self._text.ends
        if written.ended and (not tokens or tokens[-1] not in ends):
            # An end of turn that was not known, or one that the server keeps to itself.
            piece = self._text.pieces(tokens[-1:])
            if not tokens or (piece[0] and written.text.endswith(piece[0])):
                tokens = (*tokens, self._text.closing)
            else:
                ends.add(tokens[-1])
        return up_to_its_end(job, tokens, replace(rules, end_of_turn=frozenset(ends)))

    async def _answer(self, job: Job, ask: Ask, tokens: tuple[int, ...]) -> tuple[str, int]:
        """The answer to a follow-up question, and the number of its tokens."""
        before = before_question(job, tokens, frozenset(self._text.ends))
        order = Order((*before, *ask.ids), 1, ask.max_new_tokens, _GREEDY, 0)
        (reply,) = await self._pool.send(self._dialect.write(order, self._facts), self._affinity(job))
        tokens, _ = await asyncio.to_thread(self._reply, job, reply, Rules(_GREEDY, 0, frozenset(), self.decode))
        return await asyncio.to_thread(self.decode, tokens), len(tokens)

    def _recorded(self, place: Returned, token: int, sampling: Sampling) -> float:
        """Probability of a token that was drawn, NaN where what was listed beside it does not settle it."""
        law = law_of(place, sampling, self._facts.vocabulary)
        at = law.p[law.ids == token]
        return float(at[0]) if len(at) and at[0] > 0 and law.error == 0 else float("nan")

    async def _places(self, path: Path, sampling: Sampling) -> list[Returned]:
        """What the server says of the place of each of a path's tokens, as far as its law needs it."""
        ids, first = (*path.context.ids, *path.tokens), len(path.context.ids)
        if not path.tokens:
            return []
        call = self._dialect.read_path(ids, first, self._listed(0, sampling), self._facts)
        places: Sequence[Returned] = self._seen.get(ids, ())
        if len(places) == len(path.tokens):
            pass
        elif call is not None and (found := await self._read_path(call, path)) is not None:
            places = [
                *found,
                *[
                    await self._next(ids[: first + s], self._listed(0, sampling))
                    for s in range(len(found), len(path.tokens))
                ],
            ]
        else:
            places = [await self._next(ids[: first + s], self._listed(0, sampling)) for s in range(len(path.tokens))]
        settled = (self._settle(place, ids[: first + s], path.tokens[s], sampling) for s, place in enumerate(places))
        return list(await asyncio.gather(*settled))

    async def _read_path(self, call: Call[list[Returned]], path: Path) -> list[Returned] | None:
        """What one pass over a path says; None where the server read other tokens than the path's."""
        try:
            return await self._pool.send(call, _digest(path.context.ids))
        except Drift:
            self._drifted.add(path)
            return None

    async def _settle(self, place: Returned, prefix: tuple[int, ...], token: int, sampling: Sampling) -> Returned:
        """The same place with more tokens listed, until its law is settled or the server has no more to say."""
        asked, level = self._listed(0, sampling), 0
        while not is_settled(place, token, sampling, self._facts.vocabulary):
            level += 1
            listed = self._listed(level, sampling, token not in place.ids)
            if listed <= asked:
                return await self._discover(place, prefix)
            asked = listed
            place = place.joined(await self._next(prefix, listed))
        return place

    def _listed(self, level: int, sampling: Sampling, whole: bool = False) -> int:
        limit = self._facts.most_listed or self._facts.vocabulary or LISTED[-1]
        return to_list(level, sampling, limit, whole=whole)

    async def _next(self, prefix: tuple[int, ...], listed: int) -> Returned:
        """What the server says of the token after a prefix."""
        for seed in range(TRIES):
            order = Order(prefix, 1, 1, _RAW, seed, listed)
            (written,) = await self._pool.send(self._dialect.write(order, self._facts), _digest(prefix))
            if written.places or not written.ended:
                return self._place(written)
        # A server that takes text only says nothing where the turn ends: drawn so often, it is likely.
        guess = Returned.of({written.tokens[-1]: float(np.log(TRIES / (TRIES + 1)))}, 1)
        return replace(guess, within=1 / (TRIES + 1))

    async def _discover(self, place: Returned, prefix: tuple[int, ...]) -> Returned:
        """Where the server lists too few tokens: more of them, found by letting it draw from its law.

        Each drawn token comes with its log-probability. Drawn at temperature 1 without filter, so that this is a raw
        one under every server's convention.
        """
        if self._facts.most_listed is None:
            return place
        seed = int.from_bytes(_digest(prefix), "big") >> (64 - self._dialect.seed_bits)
        count = min(self._facts.most_children, SEEDS)
        calls = [
            self._dialect.write(Order(prefix, count, 1, _RAW, seed + start, self._facts.most_listed), self._facts)
            for start in range(0, SEEDS, count)
        ]
        for answer in await asyncio.gather(*(self._pool.send(call, _digest(prefix), count) for call in calls)):
            for written in answer:
                place = place.joined(self._place(written)) if written.places else place
        return place

    def _place(self, written: Written) -> Returned:
        if not written.places:
            raise EngineError(
                f"the server sent no log-probabilities of {self._facts.model}, without which nothing can be scored."
            )
        return written.places[0]


def _digest(ids: Sequence[int]) -> bytes:
    """A short name of a prefix."""
    return hashlib.blake2b(np.asarray(ids, dtype=np.int64).tobytes(), digest_size=8).digest()
