"""Two runs of a study side by side: the same numbers of both, and their differences.

Two models, or two temperatures, are asked the same questions, so what differs between the runs is estimated on the
questions that both were asked: whole questions are drawn again, together with what either run made of them. That keeps
the difference free of how hard the questions happen to be, and its interval right where a question was sampled often.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from blinkscope.errors import UserError
from blinkscope.estimate.source import JSON
from blinkscope.estimate.trace import SCHEMA
from blinkscope.plurals import counted
from blinkscope.runs.spec import differences
from blinkscope.studies.accuracy import Numbers, numbers_of
from blinkscope.studies.intervals import clustered_intervals
from blinkscope.studies.majority import WAYS
from blinkscope.studies.study import Row, StudyResult


@dataclass(frozen=True)
class Compared:
    """How runs of a study are compared.

    table: of observations. cluster: the column that says which of them belong together. numbers: of some of them.
    """

    table: str
    cluster: str
    numbers: Callable[[Sequence[Row]], Numbers]


def _ways(rows: Sequence[Row]) -> Numbers:
    """Accuracy of each way to answer."""
    columns = {way: np.array([row[way] for row in rows], dtype=float) for way in WAYS}
    return lambda chosen: {way: _mean(values[chosen]) for way, values in columns.items()}


def _prefills(rows: Sequence[Row]) -> Numbers:
    """Mean over the prompts after each number of tokens prefilled."""
    kept = np.array([row["kept"] for row in rows])
    shares = np.array([np.nan if row["share"] is None else row["share"] for row in rows], dtype=float)
    places = sorted({row["kept"] for row in rows})

    def numbers(chosen: Int[np.ndarray, " chosen"]) -> Mapping[str, float | None]:
        known = chosen[np.isfinite(shares[chosen])]
        return {f"{counted(place, 'token')} prefilled": _mean(shares[known[kept[known] == place]]) for place in places}

    return numbers


COMPARED: Mapping[str, Compared] = {
    "cot": Compared("generations", "question", numbers_of),
    "temperature": Compared("generations", "question", numbers_of),
    "majority": Compared("items", "question", _ways),
    "prefill": Compared("curve", "item", _prefills),
}


@dataclass(frozen=True)
class Comparison:
    """Two results of one study, ``second`` against ``first``.

    differing: settings in which they differ. shared: questions that both were asked. rows: number by number, the value
    of either run over all it was asked, and the difference over the shared questions with its interval.
    """

    first: StudyResult
    second: StudyResult
    differing: tuple[str, ...]
    shared: int
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, JSON]:
        """The JSON object of ``show RUN.db --against OTHER.db --json``."""
        return {
            "schema": SCHEMA,
            "study": self.first.study,
            "level": self.first.target.level,
            "differing": list(self.differing),
            "shared": self.shared,
            "first": {"spec": dict(self.first.spec), "summary": self.first.summary},
            "second": {"spec": dict(self.second.spec), "summary": self.second.summary},
            "comparison": [dict(row) for row in self.rows],
        }


def compare(first: StudyResult, second: StudyResult) -> Comparison:
    """The numbers of two results of one study, and the differences second less first.

    Raises
    ------
    UserError : they are of different studies, of one that cannot be compared, or share no question.
    """
    if first.study != second.study:
        raise UserError(f"a study {first.study} and a study {second.study} cannot be compared; give two of one kind.")
    how = COMPARED.get(first.study)
    if how is None:
        raise UserError(f"runs of study {first.study} cannot be compared; those of {', '.join(COMPARED)} can.")
    sides = tuple(result.findings.tables.get(how.table, ()) for result in (first, second))
    places = tuple(_places(result, rows, how.cluster) for result, rows in zip((first, second), sides, strict=True))
    shared = [name for name in places[0] if name in places[1]]
    if not shared:
        raise UserError(f"the two runs share no {how.cluster}, so there is nothing to compare.")
    numbers = tuple(how.numbers(rows) for rows in sides)

    def less(chosen: Int[np.ndarray, " chosen"]) -> Mapping[str, float | None]:
        """Second less first over some of the shared questions."""
        a, b = (
            of(np.concatenate([where[shared[i]] for i in chosen])) for of, where in zip(numbers, places, strict=True)
        )
        return {name: _less(b.get(name), value) for name, value in a.items()}

    whole = [of(np.arange(len(rows))) for of, rows in zip(numbers, sides, strict=True)]
    values = less(np.arange(len(shared)))
    limits = clustered_intervals(range(len(shared)), less, tuple(values), first.target.level)
    rows = tuple(
        {"number": name, "first": whole[0][name], "second": whole[1].get(name), "difference": value}
        | {"difference_low": limits[name][0], "difference_high": limits[name][1]}
        for name, value in values.items()
    )
    found = differences(dict(first.spec), dict(second.spec))
    differing = tuple(f"{one.key}: {one.stored} and {one.asked}" for one in found)
    return Comparison(first, second, differing, len(shared), rows)


def _places(result: StudyResult, rows: Sequence[Row], cluster: str) -> dict[str, Int[np.ndarray, " places"]]:
    """Where the observations of each cluster stand.

    A cluster is known by what was asked, where that is kept: the first questions of two data sets have the same id.
    """
    prompts = {transcript.item: transcript.prompt for transcript in result.findings.transcripts}
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(prompts.get(str(row.get("item"))) or str(row[cluster]), []).append(i)
    return {name: np.array(places) for name, places in groups.items()}


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _mean(values: Float[np.ndarray, " n"]) -> float | None:
    return float(values.mean()) if len(values) else None
