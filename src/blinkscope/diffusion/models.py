"""What ``--model diffusion:NAME`` names: models of pictures with the labels that they bring."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from blinkscope.diffusion import grammar
from blinkscope.diffusion.digits import SHAPE, WEIGHTS, load_digits_model, load_scans
from blinkscope.diffusion.exact import EmpiricalData
from blinkscope.diffusion.gaussian import GaussianDiffusion
from blinkscope.diffusion.grammar import GRAMMAR, classes, load_grammar_model
from blinkscope.diffusion.masked import MaskedDiffusion
from blinkscope.diffusion.pictures import PictureModel
from blinkscope.diffusion.record import Samples
from blinkscope.diffusion.schedules import check_steps, cosine_times
from blinkscope.diffusion.shipped import weights_digest
from blinkscope.errors import UserError

SCHEME = "diffusion:"
NEAR = 1e-3  # OU time at which a scan's nearest neighbour is as good as certain


@dataclass(frozen=True)
class Parameters:
    """What can stand behind the name of a model, as ``?steps=50&eta=1``.

    digit: draw this class only; -1 draws all.
    churn: of the reverse process, which then has eta = 0; see ``GaussianDiffusion``.
    class_: number of the class that a pipeline draws, spelled ``class``. null: the number that stands for no class.
    guidance: scale of classifier-free guidance; 1 is none.
    """

    steps: int = 50
    eta: float = 1.0
    digit: int = -1
    churn: float = 0.0
    class_: int | None = None
    null: int | None = None
    guidance: float = 1.0

    @classmethod
    def read(cls, name: str, query: str, allowed: tuple[str, ...]) -> Parameters:
        kinds: Mapping[str, type[int] | type[float]] = {
            **dict.fromkeys(("steps", "digit", "class", "null"), int),
            **dict.fromkeys(("eta", "churn", "guidance"), float),
        }
        given: dict[str, int | float] = {}
        for key, _, text in (pair.partition("=") for pair in query.split("&") if pair):
            if key not in allowed:
                raise UserError(f"{name} has no parameter {key!r}; it takes {', '.join(allowed)}.")
            field = "class_" if key == "class" else key
            if field in given:
                raise UserError(f"{name}: {key} is given twice; give it once.")
            try:
                given[field] = kinds[key](text)
            except ValueError:
                raise UserError(f"{name}: {key} is {text!r}; it must be a number.") from None
        if given.get("churn"):
            given.setdefault("eta", 0.0)  # churn goes with no other noise
        return cls(**given)  # type: ignore[arg-type]


def open_pictures(spec: str) -> PictureModel:
    """The model that ``diffusion:NAME?key=value`` names.

    Raises
    ------
    UserError : there is no such model or parameter.
    MissingExtra : a package that it needs is not installed.
    """
    name, _, query = spec.removeprefix(SCHEME).partition("?")
    if name not in MODELS:
        raise UserError(f"there is no diffusion model {name!r}; there are {', '.join(SCHEME + n for n in MODELS)}.")
    return MODELS[name](query)


def _digits(query: str) -> PictureModel:
    asked = Parameters.read("diffusion:digits", query, ("steps", "eta", "digit"))
    model = load_digits_model()
    denoise = model.denoiser(None if asked.digit == -1 else asked.digit)
    of_class = "" if asked.digit == -1 else f"&digit={asked.digit}"
    return PictureModel(
        f"diffusion:digits?steps={asked.steps}&eta={asked.eta:g}{of_class}",
        GaussianDiffusion(denoise, cosine_times(asked.steps), SHAPE, asked.eta),
        model.label,
        weights_digest(WEIGHTS),
    )


def _scans(query: str) -> PictureModel:
    asked = Parameters.read("diffusion:scans", query, ("steps", "eta"))
    known, _ = load_scans()
    data = EmpiricalData(known.pictures, tuple(str(digit) for digit in known.digits))

    def nearest(pictures: Samples) -> list[str]:
        signal = np.exp(-NEAR)
        return [data.names[k] for k in data.posterior(signal * pictures, NEAR).argmax(axis=1)]

    return PictureModel(
        f"diffusion:scans?steps={asked.steps}&eta={asked.eta:g}",
        GaussianDiffusion(data.denoise, cosine_times(asked.steps), SHAPE, asked.eta),
        nearest,
        hashlib.sha256(known.pictures.tobytes() + known.digits.tobytes()).hexdigest(),
    )


def _grammar(query: str) -> PictureModel:
    asked = Parameters.read("diffusion:grammar", query, ("steps",))
    check_steps(asked.steps)
    model = load_grammar_model()
    return PictureModel(
        f"diffusion:grammar?steps={asked.steps}",
        MaskedDiffusion(model.marginals, np.linspace(0, 1, asked.steps + 1), GRAMMAR.leaves),
        classes,
        weights_digest(grammar.WEIGHTS),
    )


MODELS: Mapping[str, Callable[[str], PictureModel]] = {"digits": _digits, "scans": _scans, "grammar": _grammar}
