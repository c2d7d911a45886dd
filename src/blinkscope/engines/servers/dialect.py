"""What a kind of server has to say for itself: how it is asked, and how its answers are read.

A dialect is pure: it makes requests and reads answers, and never sends one. An answer that is not what was asked for
raises ``Malformed``, and the request is made again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from blinkscope.engines.returned import Returned
from blinkscope.engines.wording import Words
from blinkscope.language.engine import Message
from blinkscope.language.sampling import Sampling

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Malformed(Exception):
    """An answer of a server that does not have the promised form."""


class Refused(Exception):
    """A server's no: the status, and its own words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


class Drift(Exception):
    """A server that takes text only reads a prefix as other tokens than those that it was written in."""


class UnknownModel(Exception):
    """A server does not have the model that was named; these are what it has."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(", ".join(names))


@dataclass(frozen=True)
class Call(Generic[T_co]):
    """One request: a path below the server's address, a JSON body (a GET where None), and how the answer is read."""

    path: str
    body: Mapping[str, Any] | None
    read: Callable[[Any], T_co]


class Ask(Protocol):
    """Makes one request and waits for what it says."""

    def __call__(self, call: Call[T]) -> T:
        """Raises Refused."""
        ...


@dataclass(frozen=True)
class Facts:
    """What a server says of itself.

    model: its own name of the model. context_window: most tokens of prompt and reply together.
    vocabulary: number of tokens there are, None where it does not say.
    most_listed: largest number of log-probabilities it lists for a token; None where there is no limit.
    most_children: most continuations of one prompt in a request, or 1.
    sequences: how many continuations it works on at a time.
    template: whether it has a chat template.
    ends: ids that it is known to end a turn with.
    raw: whether log-probabilities of generated tokens are those before temperature and filters.
    splits: whether it tells how it splits a text into tokens.
    """

    model: str
    context_window: int
    vocabulary: int | None = None
    most_listed: int | None = None
    most_children: int = 1
    sequences: int = 256
    template: bool = True
    ends: frozenset[int] = frozenset()
    raw: bool = True
    splits: bool = True


@dataclass(frozen=True)
class Order:
    """Continuations of one prompt. Child i has the seed ``seed`` + i.

    cap: most tokens of each. listed: how many log-probabilities to list for each token, none where 0.
    """

    ids: tuple[int, ...]
    count: int
    cap: int
    sampling: Sampling
    seed: int
    listed: int = 0


@dataclass(frozen=True, eq=False)
class Written:
    """One continuation as the server sent it.

    tokens: its ids. ended: whether the model ended it, rather than a stop text or the cap. text: what they spell.
    places: what was said of each token's place, where that was asked for.
    """

    tokens: tuple[int, ...]
    ended: bool
    text: str = ""
    places: tuple[Returned, ...] | None = None


class Dialect(Protocol):
    """How a kind of server is found out, made to write, and asked about a text.

    seed_bits: width of the seeds it takes.
    """

    @property
    def name(self) -> str: ...

    @property
    def seed_bits(self) -> int: ...

    def facts(self, ask: Ask, model: str | None) -> Facts | None:
        """What the server says of itself; None where it is of another kind.

        Raises
        ------
        UnknownModel : it has no model of that name.
        """
        ...

    def write(self, order: Order, facts: Facts) -> Call[list[Written]]:
        """Continuations, in the order of their seeds."""
        ...

    def read_path(self, ids: Sequence[int], first: int, listed: int, facts: Facts) -> Call[list[Returned]] | None:
        """What the server says of every place from ``first`` on, from one pass; None where it has no such thing.

        Reading the answer raises Drift where the server does not see these tokens.
        """
        ...


class TextDialect(Dialect, Protocol):
    """A kind of server that takes and gives token ids, and has the tokenizer."""

    def tokenise(self, text: str, facts: Facts, *, opening: bool) -> Call[tuple[int, ...]]:
        """Ids of a text, marks in it understood; ``opening`` adds what the tokenizer puts before a whole text."""
        ...

    def plain(self, text: str, facts: Facts) -> Call[tuple[int, ...]]:
        """Ids of a text in which marks are ordinary characters, as far as the server can do that."""
        ...

    def spell(self, ids: Sequence[int], facts: Facts) -> Call[str]:
        """The text of ids."""
        ...

    def template(self, messages: Sequence[Message], facts: Facts) -> Call[str | tuple[int, ...]]:
        """A conversation with the opening of the reply, as text or as ids."""
        ...

    def table(self, facts: Facts) -> Call[dict[int, bytes]] | None:
        """The bytes of every token, those of marks empty; None where the server cannot list them."""
        ...


class ServerWords(Words, Protocol):
    """Between words and token ids, wherever the tokenizer is.

    ends: ids that are known to end a turn; more are added as they are seen doing so.
    """

    @property
    def ends(self) -> set[int]: ...

    @property
    def closing(self) -> int:
        """The token that marks a reply as finished."""
        ...


_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a1-\u02ff\u0370-\u1fff\u3000-\ud7ff]+")
MOST_WORDS = 300


def own_words(body: str, parsed: Any) -> str:
    """What a server said went wrong, from the usual places in its answer, fit to be printed."""
    found: Any = parsed
    for name in ("error", "message", "detail"):
        if isinstance(found, Mapping) and name in found:
            found = found[name]
    words = found if isinstance(found, str) else body
    words = " ".join(_UNPRINTABLE.sub(" ", words).split())
    return words if len(words) <= MOST_WORDS else words[:MOST_WORDS] + " ..."


def model_of(listed: Reader, wanted: str | None) -> dict[str, Any]:
    """The entry of ``/v1/models`` for a model; for the first one where none is named."""
    entries = listed.get("data", kind=list)
    for entry in entries:
        if wanted is None or wanted in (entry.get("id"), *entry.get("aliases", ())):
            return dict(entry)
    raise UnknownModel([str(entry.get("id")) for entry in entries])


def short(model: str) -> str:
    """A model's name without the folders of the machine that it lies on."""
    return model.rpartition("/")[2] if model.startswith("/") else model


def messages_of(turns: Sequence[Message]) -> list[dict[str, str]]:
    """Turns as every server spells them."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]


@dataclass(frozen=True)
class Reader:
    """Reads fields out of an answer and says what is wrong with it."""

    answer: Any = field(repr=False)

    def get(self, *path: str | int, kind: type | tuple[type, ...] = object) -> Any:
        """The value at a path of names and indices, which must be of that kind."""
        found = self.answer
        for step in path:
            try:
                found = found[step]
            except (KeyError, IndexError, TypeError):
                raise Malformed(f"its answer has no {_spelled(path)}") from None
        if not isinstance(found, kind) or (isinstance(found, bool) and kind is not object and kind is not bool):
            raise Malformed(f"{_spelled(path)} of its answer is a {type(found).__name__}")
        return found

    def ids(self, *path: str | int) -> tuple[int, ...]:
        """A list of token ids."""
        found = self.get(*path, kind=list)
        if not all(isinstance(id_, int) and id_ >= 0 for id_ in found):
            raise Malformed(f"{_spelled(path)} of its answer holds something that is no token")
        return tuple(found)


def _spelled(path: Sequence[str | int]) -> str:
    return ".".join(str(step) for step in path)
