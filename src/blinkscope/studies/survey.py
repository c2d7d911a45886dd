"""What a study found: one finding for each of its items, read from the run file or handed over as they come.

A study's run file holds all its generations, item i under number i. The finding of an item for a target is stored when
the item is finished, so a study that goes on does not compute it again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blinkscope.errors import UserError
from blinkscope.estimate.source import JSON
from blinkscope.estimate.trace import SCHEMA, Target, Trace
from blinkscope.keeper import named
from blinkscope.plurals import counted, share_of
from blinkscope.question import refuse_unused
from blinkscope.replay_comparison import Agreement, agreement, compare_with_resamples
from blinkscope.replay_formats import item_from_json
from blinkscope.reread import items_of, method_of, stored_generation, target_of
from blinkscope.runs.spec import digest
from blinkscope.runs.store import Run
from blinkscope.studies.whole import not_finished

WAITING = "waiting"
UNFINISHED = (WAITING, "interrupted")
DEFAULT_LABELS = 12
DRAWN_BY = ("error", "continuations", "generated_tokens", "estimator", "until")
"""Fields of a target that decide what is drawn from a recording."""


@dataclass(frozen=True)
class Finding:
    """What came of one item.

    status: that of its trace; ``failed`` with the reason in ``failure``, or ``waiting`` where nothing was done yet.
    method: how it was read. windows: as in the JSON of a trace, without the label laws. error: largest standard
    deviation of the curve. What was not found out is None.
    """

    item: str
    status: str
    failure: str | None = None
    method: str | None = None
    tokens: int | None = None
    labels: tuple[str, ...] = ()
    final_label: str = ""
    windows: tuple[Mapping[str, JSON], ...] = ()
    error: float | None = None
    unrecorded_weight: float = 0.0
    continuations: int = 0
    generated_tokens: int = 0

    @classmethod
    def of(cls, item: str, trace: Trace) -> Finding:
        said = ("start", "end", "text", "change", "low", "high", "probability", "direction")
        return cls(
            item=item,
            status=trace.status,
            method=str(trace.settings["method"]),
            tokens=len(trace.steps),
            labels=trace.labels,
            final_label=trace.final_label,
            windows=tuple({name: window[name] for name in said} for window in trace.to_json()["windows"]),
            error=trace.error["reached_max"],
            unrecorded_weight=trace.unrecorded_weight,
            continuations=trace.cost.continuations,
            generated_tokens=trace.cost.generated_tokens,
        )

    @classmethod
    def from_json(cls, document: Any) -> Finding:
        """The finding that ``asdict`` made a document of."""
        try:
            return cls(**{**document, "labels": tuple(document["labels"]), "windows": tuple(document["windows"])})
        except (KeyError, TypeError) as error:
            raise UserError(f"the run file's finding cannot be read ({error}).") from None

    @property
    def analysed(self) -> bool:
        return self.status not in ("failed", WAITING)

    @property
    def aims(self) -> bool:
        """Whether it was drawn for to an error or until its windows are known; the grid and bisection look at none."""
        return self.analysed and self.method == "divergence"


@dataclass(frozen=True)
class Survey:
    """All findings of a study, in the order of its items.

    settings: what was asked, for display. agreement: of forks with free continuations over all items that hold both.
    asked: whether the run was to draw for this target, rather than being read with it only.
    """

    study: str
    status: str
    settings: Mapping[str, JSON]
    target: Target
    findings: tuple[Finding, ...]
    agreement: Agreement | None = None
    asked: bool = True

    @property
    def standing(self) -> str:
        """How far a study has come that is not complete; empty where it is."""
        if self.status == "complete":
            return ""
        done = sum(finding.status not in UNFINISHED for finding in self.findings)
        return not_finished(done, len(self.findings), asked=self.asked)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found and what it took, for a person to read."""
        said = self.summary
        share = said["share_with_window"]
        drawn = (
            counted(said["continuations"], "continuation"),
            counted(said["generated_tokens"], "generated token"),
        )
        reached = ""
        if any(finding.aims for finding in self.findings):
            reached = (
                f"; of {said['windows_known']:,} the windows are known"
                if self.target.until == "windows"
                else f"; {said['reached_error']:,} reached the error of {self.target.error:g}"
            )
        return (
            f"{share_of(said['with_window'], said['analysed'], 'generation', ('has', 'have'))} a window"
            + (f" ({share:.0%})." if share is not None else "."),
            f"{', '.join(drawn)}{reached}.",
        )

    @property
    def exit_status(self) -> int:
        """0 where all items were worked on and at least one came to something, else 1."""
        return 0 if self.status == "complete" and any(finding.analysed for finding in self.findings) else 1

    def to_json(self) -> dict[str, Any]:
        """The JSON object of ``study --json``; it depends on the draws alone."""
        return {
            "schema": SCHEMA,
            "study": self.study,
            "status": self.status,
            **self.settings,
            "target": asdict(self.target),
            "summary": self.summary,
            "comparison": None if self.agreement is None else self.agreement.to_json(),
            "items": [asdict(finding) for finding in self.findings],
        }

    @property
    def _reached(self) -> dict[str, int | None]:
        """How many items came as far as was asked for; None where the methods of all look at no such thing."""
        aiming = [finding for finding in self.findings if finding.aims]
        if self.target.until == "windows":
            name, came = "windows_known", [finding.status == "complete" for finding in aiming]
        else:
            name, came = "reached_error", [(finding.error or 0.0) <= self.target.error for finding in aiming]
        return {name: sum(came) if aiming else None}

    @property
    def summary(self) -> dict[str, Any]:
        """Counts over the items; shares are of those that were analysed."""
        done = [finding for finding in self.findings if finding.analysed]
        listed = [finding for finding in done if finding.windows]
        return {
            "items": len(self.findings),
            "analysed": len(done),
            "with_window": len(listed),
            "share_with_window": len(listed) / len(done) if done else None,
            **self._reached,
            "continuations": sum(finding.continuations for finding in done),
            "generated_tokens": sum(finding.generated_tokens for finding in done),
            "failures": {f.item: f.failure for f in self.findings if f.failure is not None},
        }


def stored_survey(path: str | Path, **changes: Any) -> Survey | None:
    """What a study's run file holds, computed without its model; None for a run of a single generation.

    ``changes`` replace fields of its ``Target``.
    """
    with Run.open(Path(path)) as run:
        if "study" not in run.spec.identity:
            return None
        refuse_of_items(run, changes)
        return survey_of(run, target_of(run).changed(**changes))


def refuse_of_items(run: Run, given: Collection[str]) -> None:
    """Refuse options, by name, that the methods of none of the items would look at."""
    methods = {method for number in range(len(items_of(run))) if (method := method_of(run, number)) is not None}
    if len(methods) == 1:
        refuse_unused(methods.pop(), given)


def survey_of(run: Run, target: Target, findings: tuple[Finding, ...] | None = None) -> Survey:
    """The findings in an open run; those of all its items where they are given."""
    if findings is None:
        findings = tuple(_finding(run, number, item, target) for number, item in enumerate(items_of(run)))
    finished = all(finding.status not in UNFINISHED for finding in findings)
    identity = run.spec.identity
    method, labels = identity.get("method"), identity.get("labels")
    own = target_of(run)
    return Survey(
        study=str(identity["study"]),
        status="complete" if finished else "interrupted",
        settings={
            "model": identity.get("model"),
            "method": method.get("name") if isinstance(method, dict) else method,
            "seed": identity.get("seed"),
        },
        target=target,
        findings=findings,
        agreement=_agreement(run, len(findings), labels if isinstance(labels, int) else DEFAULT_LABELS),
        asked=all(getattr(target, name) == getattr(own, name) for name in DRAWN_BY),
    )


def stored_finding(run: Run, number: int, target: Target) -> Finding | None:
    """The finding that was stored when the item was finished for exactly this target."""
    document = run.document(_name(number, target))
    return None if document is None else Finding.from_json(document)


def finding_of(run: Run, number: int, target: Target) -> Finding | None:
    """The finding that was stored for this target; one that failed for the run's own fails for any."""
    found = stored_finding(run, number, target)
    if found is None:
        own = stored_finding(run, number, target_of(run))
        found = own if own is not None and own.status == "failed" else None
    return found


def store_finding(run: Run, number: int, target: Target, finding: Finding) -> None:
    run.put_document(_name(number, target), asdict(finding))


def _name(number: int, target: Target) -> str:
    key = digest(asdict(target))[:16]
    return f"finding {number} {key}"


def _finding(run: Run, number: int, item: str, target: Target) -> Finding:
    found = finding_of(run, number, target)
    if found is not None:
        return found
    if run.document(named("path", number)) is None:
        return Finding(item, WAITING)
    return Finding.of(item, stored_generation(run, number, target))


def _agreement(run: Run, items: int, labels: int) -> Agreement | None:
    comparisons = []
    for number in range(items):
        document = run.document(named("item", number))
        item = None if document is None else item_from_json(document)
        if item is not None and item.forks and any(entry.position < len(item.tokens) for entry in item.resamples):
            comparisons.append(compare_with_resamples(item, labels))
    return agreement(comparisons) if comparisons else None
