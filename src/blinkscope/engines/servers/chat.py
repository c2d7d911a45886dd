"""A model behind a chat route: its whole answer to one turn, which is all that a judge has to give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blinkscope.engines.servers.address import read_servers
from blinkscope.engines.servers.dialect import Call, Reader, Refused, UnknownModel, model_of
from blinkscope.engines.servers.pool import Passing, Pool, Unreachable, refusal
from blinkscope.errors import EngineError, UserError
from blinkscope.feature import Reply


def open_chat(spec: str, cap: int) -> Callable[[str], Reply]:
    """The function from one user's turn to the answer of the model that ``SPEC`` names, at temperature 0.

    Parameters
    ----------
    spec : as in ``read_servers``; any server with the routes ``/v1/models`` and ``/v1/chat/completions``.
    cap : most tokens of an answer.

    Raises
    ------
    UserError : there is no such model, or the server refuses to say what it has.
    EngineError : no server answers; of the function, also that it took too long or refused the question.
    """
    pool = Pool(read_servers(spec))
    (first, *_) = pool.endpoints
    try:
        model = str(model_of(pool.ask(first, Call("/v1/models", None, Reader)), pool.servers.model)["id"])
    except Refused as no:
        raise refusal(first.address, no) from no
    except UnknownModel as others:
        wanted = pool.servers.model
        raise UserError(f"the server at {first.address.host} has no model {wanted}; it has {others}.") from others
    except (Passing, Unreachable) as fault:
        host = first.address.host
        raise EngineError(f"no server answers at {host} ({fault}); start it, or mend the address.") from fault

    def answer(question: str) -> Reply:
        turns = [{"role": "user", "content": question}]
        body = {"model": model, "messages": turns, "temperature": 0, "max_tokens": cap}
        try:
            (reply,) = pool.ask_any([Call("/v1/chat/completions", body, _said)])
        except UserError as no:
            raise EngineError(str(no)) from no
        return reply

    return answer


def _said(answer: Any) -> Reply:
    """The first choice; a message without text is an empty one."""
    choice = Reader(answer)
    text = choice.get("choices", 0, "message", kind=dict).get("content")
    return Reply(text if isinstance(text, str) else "", choice.get("choices", 0, "finish_reason") == "stop")
