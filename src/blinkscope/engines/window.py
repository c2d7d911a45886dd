"""Does it fit? How many tokens a model takes, and what a user is told where there are more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from blinkscope.errors import UserError
from blinkscope.language.engine import Context, Job
from blinkscope.language.sampling import Sampling


@dataclass(frozen=True)
class ContextWindow:
    """Most tokens that context and generation may have together, and whose limit that is."""

    tokens: int
    owner: Literal["model", "server"]

    def check_prompt(self, context: Context) -> Context:
        """The context itself, refused where it leaves no room for a token."""
        if len(context.ids) >= self.tokens:
            raise UserError(
                f"the prompt has {len(context.ids)} tokens and the {self.owner}'s context window is {self.tokens}; "
                "shorten the prompt."
            )
        return context

    def check(self, tokens: int) -> None:
        """Refuse a context and a generation that may have more tokens together."""
        if tokens > self.tokens:
            raise UserError(
                f"context and generation may have {tokens} tokens together, and the {self.owner}'s context window is "
                f"{self.tokens}; shorten the prompt or lower --max-new-tokens."
            )


def most_tokens(job: Job, sampling: Sampling) -> int:
    """Tokens that a continuation, its context and the answer to its follow-up question have together at most."""
    if not 0 <= job.kept <= len(job.path.tokens):
        raise UserError(f"a continuation keeps {job.kept} tokens of a path of {len(job.path.tokens)}.")
    ask = 0 if job.ask is None else len(job.ask.ids) + job.ask.max_new_tokens
    return len(job.path.context.ids) + max(sampling.max_new_tokens, job.kept + len(job.forced)) + ask
