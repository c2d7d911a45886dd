"""blinkscope: see where a generative model makes up its mind.

The public names, in the order of the theory. They are resolved on first use, so that ``import blinkscope`` loads none
of the packages that only some of them need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blinkscope.divergence import total_variation
    from blinkscope.errors import BlinkscopeError, EngineError, MissingExtra, UserError
    from blinkscope.estimate.record import MethodOptions
    from blinkscope.estimate.trace import Fork, Target, Trace
    from blinkscope.feature import Reply
    from blinkscope.features import feature_of, open_feature
    from blinkscope.language.engine import Message
    from blinkscope.language.sampling import Sampling
    from blinkscope.posterior import Posterior
    from blinkscope.report.html import write_report
    from blinkscope.session import locate, open_model, stored
    from blinkscope.window import TokenWindow, token_windows

_HOMES = {
    "Posterior": "posterior",
    "total_variation": "divergence",
    "TokenWindow": "window",
    "token_windows": "window",
    "Reply": "feature",
    "feature_of": "features",
    "open_feature": "features",
    "Message": "language.engine",
    "Sampling": "language.sampling",
    "MethodOptions": "estimate.record",
    "Target": "estimate.trace",
    "Trace": "estimate.trace",
    "Fork": "estimate.trace",
    "open_model": "session",
    "locate": "session",
    "stored": "session",
    "write_report": "report.html",
    "BlinkscopeError": "errors",
    "UserError": "errors",
    "MissingExtra": "errors",
    "EngineError": "errors",
}

__all__ = [
    "BlinkscopeError",
    "EngineError",
    "Fork",
    "Message",
    "MethodOptions",
    "MissingExtra",
    "Posterior",
    "Reply",
    "Sampling",
    "Target",
    "TokenWindow",
    "Trace",
    "UserError",
    "feature_of",
    "locate",
    "open_feature",
    "open_model",
    "stored",
    "token_windows",
    "total_variation",
    "write_report",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'blinkscope' has no attribute {name!r}")
    value = getattr(import_module(f"blinkscope.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
