"""blinkscope: see where a generative model makes up its mind.

The public names, in the order of the theory. They are resolved on first use, so that ``import blinkscope`` loads none
of the packages that only some of them need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blinkscope.bounds import estimated_certificate, proof_steps, theorem2
    from blinkscope.critical import CriticalWindow, critical_window, end_time, start_time
    from blinkscope.divergence import (
        bhattacharyya,
        estimated_kullback_leibler,
        estimated_mutual_information,
        estimated_squared_hellinger,
        estimated_total_variation,
        kullback_leibler,
        label_law,
        mixture_total_variation,
        mutual_information,
        squared_hellinger,
        total_variation,
    )
    from blinkscope.errors import BlinkscopeError, EngineError, MissingExtra, UserError
    from blinkscope.estimate.record import MethodOptions
    from blinkscope.estimate.trace import Fork, Target, Trace
    from blinkscope.feature import Reply
    from blinkscope.features import feature_of, open_feature
    from blinkscope.language.engine import Message
    from blinkscope.language.sampling import Sampling
    from blinkscope.posterior import Posterior, martingale_check, submixture
    from blinkscope.processes import (
        AbsorbingMasking,
        FlowMatching,
        MarkovNoise,
        PermutedMasking,
        TokenTruncation,
        VarianceExploding,
        VariancePreserving,
    )
    from blinkscope.report.html import write_report
    from blinkscope.reread import stored
    from blinkscope.sampled import sampled_window
    from blinkscope.sampler import DeterministicReverse, IndexSet, LocalizationSampler, forward_reverse
    from blinkscope.session import locate, open_model
    from blinkscope.tree import MixtureTree, Node, build_tree, check_tree, tree_text, window_sequence
    from blinkscope.window import TokenWindow, token_windows
    from blinkscope.worlds import create_world
    from blinkscope.worlds.figure import plot_world
    from blinkscope.worlds.report import world_json

_HOMES = {
    "IndexSet": "sampler",
    "DeterministicReverse": "sampler",
    "LocalizationSampler": "sampler",
    "forward_reverse": "sampler",
    "TokenTruncation": "processes",
    "PermutedMasking": "processes",
    "AbsorbingMasking": "processes",
    "MarkovNoise": "processes",
    "VariancePreserving": "processes",
    "VarianceExploding": "processes",
    "FlowMatching": "processes",
    "Posterior": "posterior",
    "submixture": "posterior",
    "martingale_check": "posterior",
    "total_variation": "divergence",
    "mixture_total_variation": "divergence",
    "squared_hellinger": "divergence",
    "bhattacharyya": "divergence",
    "kullback_leibler": "divergence",
    "mutual_information": "divergence",
    "label_law": "divergence",
    "estimated_total_variation": "divergence",
    "estimated_squared_hellinger": "divergence",
    "estimated_kullback_leibler": "divergence",
    "estimated_mutual_information": "divergence",
    "CriticalWindow": "critical",
    "critical_window": "critical",
    "start_time": "critical",
    "end_time": "critical",
    "sampled_window": "sampled",
    "theorem2": "bounds",
    "proof_steps": "bounds",
    "estimated_certificate": "bounds",
    "Node": "tree",
    "MixtureTree": "tree",
    "build_tree": "tree",
    "check_tree": "tree",
    "window_sequence": "tree",
    "tree_text": "tree",
    "create_world": "worlds",
    "world_json": "worlds.report",
    "plot_world": "worlds.figure",
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
    "stored": "reread",
    "write_report": "report.html",
    "BlinkscopeError": "errors",
    "UserError": "errors",
    "MissingExtra": "errors",
    "EngineError": "errors",
}

__all__ = [
    "AbsorbingMasking",
    "BlinkscopeError",
    "CriticalWindow",
    "DeterministicReverse",
    "EngineError",
    "FlowMatching",
    "Fork",
    "IndexSet",
    "LocalizationSampler",
    "MarkovNoise",
    "Message",
    "MethodOptions",
    "MissingExtra",
    "MixtureTree",
    "Node",
    "PermutedMasking",
    "Posterior",
    "Reply",
    "Sampling",
    "Target",
    "TokenTruncation",
    "TokenWindow",
    "Trace",
    "UserError",
    "VarianceExploding",
    "VariancePreserving",
    "bhattacharyya",
    "build_tree",
    "check_tree",
    "create_world",
    "critical_window",
    "end_time",
    "estimated_certificate",
    "estimated_kullback_leibler",
    "estimated_mutual_information",
    "estimated_squared_hellinger",
    "estimated_total_variation",
    "feature_of",
    "forward_reverse",
    "kullback_leibler",
    "label_law",
    "locate",
    "martingale_check",
    "mixture_total_variation",
    "mutual_information",
    "open_feature",
    "open_model",
    "plot_world",
    "proof_steps",
    "sampled_window",
    "squared_hellinger",
    "start_time",
    "stored",
    "submixture",
    "theorem2",
    "token_windows",
    "total_variation",
    "tree_text",
    "window_sequence",
    "world_json",
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
