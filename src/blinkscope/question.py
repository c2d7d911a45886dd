"""What is asked of a model: the identity of a run, apart from the model itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from blinkscope.errors import UserError, expect, expect_fields
from blinkscope.estimate.record import MethodOptions
from blinkscope.estimate.trace import Target
from blinkscope.feature import Feature, Reply
from blinkscope.language.engine import Message
from blinkscope.language.sampling import Sampling


@dataclass(frozen=True)
class Question:
    """What is asked of the model, apart from the model itself; the identity of a run.

    prompt: text of one user turn, or a conversation. A last assistant message is the generation to analyse.
    generation: a transcript to analyse instead of a fresh sample.
    feature: how outcomes are told apart; None takes the model's own labels.
    ask: a follow-up question whose answer is labelled instead of the reply.
    sampling: None takes the model's own settings.
    """

    prompt: str | tuple[Message, ...]
    system: str | None = None
    prefill: str = ""
    generation: str | None = None
    feature: str | Callable[[str], str | None] | Feature[Reply] | None = None
    ask: str | None = None
    sampling: Sampling | None = None
    method: MethodOptions = field(default_factory=MethodOptions)
    seed: int = 0
    labels: int = 12

    def __post_init__(self) -> None:
        expect("prompt", self.prompt, (str, tuple), "the text of a user's turn, or chat messages")
        expect("prefill", self.prefill, str, "a text")
        for name in ("system", "generation", "ask"):
            expect(name, getattr(self, name), (str, type(None)), "a text, or None")
        expect("sampling", self.sampling, (Sampling, type(None)), "a Sampling, such as Sampling(temperature=0.7)")
        expect("method", self.method, MethodOptions, "the name of a method, or MethodOptions")
        if not self.prompt or (isinstance(self.prompt, str) and not self.prompt.strip()):
            raise UserError("the prompt is empty; give the text of a user's turn, or chat messages.")
        check_labels_and_seed(self)
        if self.generation is not None and not self.generation.strip():
            raise UserError("the generation to analyse is empty; give its text, or leave it out for a fresh sample.")
        if self.ask is not None and not self.ask.strip():
            raise UserError("the follow-up question is empty; give the text of a user turn, or leave it out.")
        if not isinstance(self.prompt, str):
            if self.prompt and self.prompt[-1].role == "assistant" and self.generation is not None:
                raise UserError("the messages end with an assistant's reply and a generation is given too; give one.")
            if self.system is not None and any(message.role == "system" for message in self.prompt):
                raise UserError("the messages have a system prompt and another one is given; give one.")

    @property
    def turns(self) -> str | tuple[Message, ...]:
        """The conversation before the generation."""
        turns = self.prompt
        if not isinstance(turns, str):
            turns = turns[:-1] if turns and turns[-1].role == "assistant" else turns
        if self.system is None:
            return turns
        rest = (Message("user", turns),) if isinstance(turns, str) else turns
        return (Message("system", self.system), *rest)

    @property
    def request(self) -> str:
        """What the generation answers: the last turn of the user."""
        if isinstance(self.prompt, str):
            return self.prompt
        return next((turn.content for turn in reversed(self.prompt) if turn.role == "user"), "")

    @property
    def transcript(self) -> str | None:
        """The generation to analyse, where one is given."""
        if not isinstance(self.prompt, str) and self.prompt and self.prompt[-1].role == "assistant":
            return self.prompt[-1].content
        return self.generation


class Seeded(Protocol):
    """A question with a number of labels and a seed."""

    @property
    def labels(self) -> int: ...

    @property
    def seed(self) -> int: ...


def check_labels_and_seed(question: Seeded) -> None:
    """Refuse a number of labels or a seed that nothing can be done with."""
    expect_fields(question, ("labels", "seed"), int, "a whole number")
    if question.labels < 2:
        raise UserError(f"labels is {question.labels}; at least 2 outcomes must be kept apart.")
    if question.seed < 0:
        raise UserError(f"the seed is {question.seed}; it must be a whole number from 0 on.")


def check_sampling(**changes: Any) -> None:
    """Refuse settings of a sampler that make no sense, whatever the model."""
    Sampling(**changes)


def sort_options(
    kind: type[Any], target: Target | None, options: Mapping[str, Any], refusal: Callable[[str, Sequence[str]], str]
) -> tuple[dict[str, Any], Target]:
    """Options by name: those that are fields of ``kind``, and the target with those that are its own.

    Parameters
    ----------
    target : what its fields replace; the default one where None.
    refusal : the sentence for a name that is neither, from that name and all that there are.
    """
    expect("target", target, (Target, type(None)), "a Target, such as Target(error=0.1), or None")
    of_target = {name: value for name, value in options.items() if name in Target.__dataclass_fields__}
    of_kind = {name: value for name, value in options.items() if name not in of_target}
    known = [field.name for part in (kind, Target) for field in fields(part)]
    if unknown := sorted(set(of_kind) - set(known)):
        raise UserError(refusal(unknown[0], known))
    refuse_unused(of_kind.get("method"), of_target)
    return of_kind, (target or Target()).changed(**of_target)


def refuse_unused(method: MethodOptions | str | None, given: Collection[str], *, why: str = "") -> None:
    """Refuse options, by name, that a method would not look at.

    Grid and bisect do not draw to an error, and the windows of grid lie between two of its rows, however far apart.

    Parameters
    ----------
    why : where nobody asked for the method, a clause that says why it is this one; it goes on after its name.
    """
    name = method.name if isinstance(method, MethodOptions) else method
    if name not in ("grid", "bisect"):
        return
    for option in ("error", "estimator", "until"):
        if option in given:
            raise UserError(
                f"{option} is of the method divergence; {name}{why} draws as many continuations at each row as "
                "resamples says, so leave it out."
            )
    if name == "grid" and "max_width" in given:
        raise UserError(
            f"max-width is of the methods divergence and bisect; a window of grid{why} lies between two of its "
            "fractions, so leave it out."
        )


def messages(items: Sequence[Message | Mapping[str, str]]) -> tuple[Message, ...]:
    """Chat messages from dictionaries with ``role`` and ``content``."""
    expect("prompt", items, (list, tuple), "the text of a user's turn, or a list of chat messages")
    out = []
    for i, item in enumerate(items):
        if isinstance(item, Message):
            out.append(item)
            continue
        if not isinstance(item, Mapping) or not isinstance(item.get("content"), str):
            raise UserError(f"message {i + 1} is {item!r}; a message is an object with a role and a text as content.")
        if item.get("role") not in ("system", "user", "assistant"):
            raise UserError(f"message {i + 1} has the role {item.get('role')!r}; use system, user or assistant.")
        out.append(Message(item["role"], item["content"]))  # type: ignore[arg-type]
    if not out:
        raise UserError("there are no messages; give at least a user's.")
    return tuple(out)
