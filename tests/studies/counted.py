"""A toy model that counts the continuations it writes, and can be stopped as a kill would stop it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from blinkscope.engines import open_engine
from blinkscope.language.engine import Completion, Engine, Job
from blinkscope.language.sampling import Sampling


@dataclass(eq=False)
class Counted:
    """An engine; ``stop_after`` completions it is interrupted."""

    model: str
    stop_after: int | None = None
    written: list[tuple[int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inner: Engine = open_engine(self.model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def continue_(self, jobs: Iterable[Job], sampling: Sampling, seed: int) -> Iterator[Completion]:
        for done in self.inner.continue_(jobs, sampling, seed):
            if self.stop_after is not None and len(self.written) >= self.stop_after:
                raise KeyboardInterrupt
            self.written.append(done.job.stream)
            yield done
