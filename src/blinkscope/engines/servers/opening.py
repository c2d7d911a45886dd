"""Finding out what stands behind an address: which kind of server, and what it says of its model."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, cast

from blinkscope.engines.servers.address import Servers
from blinkscope.engines.servers.completions import Completions
from blinkscope.engines.servers.dialect import Ask, Call, Dialect, Facts, Refused, TextDialect, UnknownModel
from blinkscope.engines.servers.llama_server import LlamaServer
from blinkscope.engines.servers.pool import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Endpoint,
    Passing,
    Pool,
    Unreachable,
    refusal,
)
from blinkscope.engines.servers.sglang import SGLang
from blinkscope.engines.servers.vllm import VLLM
from blinkscope.errors import EngineError, UserError
from blinkscope.language.engine import Message

T = TypeVar("T")

DIALECTS: Mapping[str, Callable[[], Dialect]] = {
    "llama-server": LlamaServer,
    "vllm": VLLM,
    "sglang": SGLang,
    "completions": Completions,
}
"""Kinds of servers, in the order in which an unknown one is tried."""


TRIES = 4  # of asking a server what it is
PROBE = "In 2026, it's 12,345 na\u00efve \u4e2d\u6587 \U0001f642:\n\n  f(x)"
"""A text on which tokenizers differ."""


@dataclass(frozen=True)
class Met:
    """What a server said of itself. signs: what must be the same for all servers, by what it is called."""

    dialect: Dialect
    facts: Facts
    signs: Mapping[str, object]

    def compare(self, other: Met) -> None:
        """Refuse a server that is another one's but in name: what both said must be the same.

        Raises
        ------
        UserError : they differ.
        """
        ours, theirs = (f"a {met.dialect.name} with {met.facts.model}" for met in (self, other))
        if ours != theirs:
            raise UserError(f"the servers differ: one is {ours}, another {theirs}; name servers of one model.")
        for what in self.signs.keys() & other.signs.keys():
            if self.signs[what] != other.signs[what]:
                raise UserError(
                    f"the servers differ in their {what}, though all call their model {self.facts.model}; name servers "
                    "of one model, with the same settings."
                )


def meet(pool: Pool) -> tuple[Dialect, Facts]:
    """The dialect of a pool's servers and what they say of their model, which must be the same for all.

    A server that does not answer is left out for now, as long as one does. Whenever one is back it is met again before
    it is given work.

    Raises
    ------
    UserError : a server is no server of models, refuses the key, has no such model, or differs from the others.
    EngineError : no server answers.
    """
    met: list[Met] = []
    silent: list[str] = []
    for endpoint in pool.endpoints:
        try:
            met.append(_meet_patiently(pool, endpoint))
        except (Unreachable, Passing) as fault:
            pool.note_fault(endpoint, Unreachable(str(fault)))
            silent.append(f"{endpoint.address.host} ({fault})")
        else:
            endpoint.met, endpoint.room = True, _room(pool, met[-1].facts)
    if not met:
        raise EngineError(f"no server answers at {', '.join(silent)}; start it, or mend the address.")
    if silent:
        warnings.warn(f"no answer from {', '.join(silent)}; it is left out and tried again later.", stacklevel=2)
    first, *others = met
    for other in others:
        first.compare(other)
    facts = _agreed([one.facts for one in met])

    def meet_again(pool: Pool, endpoint: Endpoint) -> None:
        back = _meet(pool, endpoint)
        first.compare(back)
        if _agreed([facts, back.facts]) != facts:
            raise UserError("it can do less than the others (context window, log-probabilities or continuations).")
        endpoint.room = _room(pool, back.facts)

    pool.meet_again = meet_again
    for endpoint in pool.endpoints:
        if not endpoint.met:  # most likely like the others
            endpoint.room = _room(pool, facts)
    return first.dialect, facts


def _room(pool: Pool, facts: Facts) -> int:
    """How many continuations a server is given at a time."""
    return pool.servers.concurrency or facts.sequences


def _meet_patiently(pool: Pool, endpoint: Endpoint) -> Met:
    """What a server says of itself, asked a few times where it answers and fails."""
    for left in range(TRIES - 1, -1, -1):
        try:
            return _meet(pool, endpoint)
        except Passing as fault:
            if not left:
                if fault.foreign:
                    raise _stranger(pool, endpoint, f" ({fault})") from fault
                raise
            time.sleep(min(FIRST_PAUSE if fault.after is None else fault.after, LONGEST_PAUSE) * random.uniform(1, 2))
    raise AssertionError


def _stranger(pool: Pool, endpoint: Endpoint, why: str = "") -> UserError:
    """What is said of a server that is not of the kind that was named, or of none that is known."""
    kinds = pool.servers.dialect or "server of models that is known here"
    return UserError(
        f"{endpoint.address.url} answers, but not like a {kinds}{why}; mend the address, or name the kind of server "
        f"with ?dialect=NAME, one of {', '.join(DIALECTS)}."
    )


def _agreed(said: Sequence[Facts]) -> Facts:
    """What holds for all of them; the rest is the first one's."""
    limits = [facts.most_listed for facts in said if facts.most_listed is not None]
    return replace(
        said[0],
        context_window=min(facts.context_window for facts in said),
        most_children=min(facts.most_children for facts in said),
        most_listed=min(limits) if limits else None,
        raw=all(facts.raw for facts in said),
        splits=all(facts.splits for facts in said),
    )


def _meet(pool: Pool, endpoint: Endpoint) -> Met:
    servers: Servers = pool.servers
    names = list(DIALECTS) if servers.dialect is None else [servers.dialect]
    if unknown := set(names) - set(DIALECTS):
        raise UserError(f"there is no dialect {unknown.pop()!r}; there are {', '.join(DIALECTS)}.")

    def ask(call: Call[T]) -> T:
        return pool.ask(endpoint, call)

    for name in names:
        dialect = DIALECTS[name]()
        try:
            facts = dialect.facts(ask, servers.model)
            if facts is not None:
                return Met(dialect, facts, _signs(dialect, facts, ask))
        except Refused as no:
            raise refusal(endpoint.address, no) from no
        except UnknownModel as others:
            raise UserError(
                f"the server at {endpoint.address.host} has no model {servers.model}; it has {others}."
            ) from others
    raise _stranger(pool, endpoint)


def _signs(dialect: Dialect, facts: Facts, ask: Ask) -> dict[str, object]:
    """How a server splits a text, and what its chat template makes of a conversation."""
    if isinstance(dialect, Completions):
        return {"tokenizer": ask(dialect.split(PROBE, facts))} if facts.splits else {}
    text = cast(TextDialect, dialect)
    signs: dict[str, object] = {"vocabulary": facts.vocabulary, "ends of turns": facts.ends}
    signs["tokenizer"] = ask(text.tokenise(PROBE, facts, opening=True))
    asked = (Message("user", PROBE),)
    signs["chat template"] = ask(text.template(asked, facts)) if facts.template else None
    return signs
