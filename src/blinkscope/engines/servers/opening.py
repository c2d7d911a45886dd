"""Finding out what stands behind an address: which kind of server, and what it says of its model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from blinkscope.engines.servers.address import Servers
from blinkscope.engines.servers.completions import Completions
from blinkscope.engines.servers.dialect import Call, Dialect, Facts, Refused, UnknownModel
from blinkscope.engines.servers.llama_server import LlamaServer
from blinkscope.engines.servers.pool import Endpoint, Passing, Pool, Unreachable, refusal
from blinkscope.engines.servers.sglang import SGLang
from blinkscope.engines.servers.vllm import VLLM
from blinkscope.errors import EngineError, UserError

T = TypeVar("T")

DIALECTS: Mapping[str, Callable[[], Dialect]] = {
    "llama-server": LlamaServer,
    "vllm": VLLM,
    "sglang": SGLang,
    "completions": Completions,
}
"""Kinds of servers, in the order in which an unknown one is tried."""


def meet(pool: Pool) -> tuple[Dialect, Facts]:
    """The dialect of a pool's servers and what they say of their model, which must be the same for all.

    A server that does not answer is left out for now, as long as one does.

    Raises
    ------
    UserError : a server is no server of models, refuses the key, has no such model, or differs from the others.
    EngineError : no server answers.
    """
    met: list[tuple[Dialect, Facts]] = []
    silent: list[str] = []
    for endpoint in pool.endpoints:
        try:
            met.append(_meet(pool, endpoint))
        except (Unreachable, Passing) as fault:
            pool.note_fault(endpoint, Unreachable(str(fault)))
            silent.append(f"{endpoint.address.host} ({fault})")
    if not met:
        raise EngineError(f"no server answers at {', '.join(silent)}; start it, or mend the address.")
    if silent:
        warnings.warn(f"no answer from {', '.join(silent)}; it is left out and tried again later.", stacklevel=2)
    (dialect, facts), *others = met
    if others and dialect.name == "completions":
        raise UserError("several servers that take text only cannot share work; name one of them.")
    for other, other_facts in others:
        ours, theirs = (dialect.name, facts.model), (other.name, other_facts.model)
        if ours != theirs:
            raise UserError(
                f"the servers differ: one is a {ours[0]} with {ours[1]}, another a {theirs[0]} with {theirs[1]}; name "
                "servers of one model."
            )
    facts = replace(facts, context_window=min(facts.context_window, *(other.context_window for _, other in met)))
    facts = replace(facts, most_children=min(facts.most_children, *(other.most_children for _, other in met)))
    for endpoint in pool.endpoints:
        endpoint.room = pool.servers.concurrency or facts.sequences
    return dialect, facts


def _meet(pool: Pool, endpoint: Endpoint) -> tuple[Dialect, Facts]:
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
        except Refused as no:
            raise refusal(endpoint.address, no) from no
        except UnknownModel as others:
            raise UserError(
                f"the server at {endpoint.address.host} has no model {servers.model}; it has {others}."
            ) from others
        if facts is not None:
            return dialect, facts
    kinds = names[0] if len(names) == 1 else "server of models that is known here"
    raise UserError(
        f"{endpoint.address.url} answers, but not like a {kinds}; mend the address, or name the kind of server with "
        f"?dialect=NAME, one of {', '.join(DIALECTS)}."
    )
