"""Annotated shapes and types are checked at run time, in the tests only."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

ARRAYS = (
    "posterior divergence window critical sampled bounds tree sampler processes worlds replay_comparison "
    "estimate.recursion estimate.allocation estimate.smoother estimate.resampling"
)
MODULES = [f"blinkscope.{name}" for name in ARRAYS.split()]
"""Where arrays are what it is about. Elsewhere the checks, some 0.1 ms a call, would cost more than they find."""

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""What ``jaxtyping`` wraps these modules' functions in; an int passes for a float."""
