"""A study of recordings in the form of the studies of models: what its page shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blinkscope.estimate.trace import Target, Trace
from blinkscope.keeper import named
from blinkscope.report.summary import agreement
from blinkscope.reread import items_of, stored_generation, target_of
from blinkscope.runs.store import Run
from blinkscope.studies.accuracy import place_rows
from blinkscope.studies.curves import curve_rows, mean_curve, said_of, window_row
from blinkscope.studies.study import Findings, Row, StudyResult
from blinkscope.studies.survey import UNFINISHED, WAITING, Finding, finding_of, refuse_of_items, survey_of
from blinkscope.studies.transcripts import Transcript, pieces_of


def stored_recordings(path: str | Path, **changes: Any) -> StudyResult | None:
    """The study of recordings in a run file; None for any other run.

    ``changes`` replace fields of its ``Target``.
    """
    with Run.open(Path(path)) as run:
        if run.spec.identity.get("study") != "replay":
            return None
        refuse_of_items(run, changes)
        return _result(run, target_of(run).changed(**changes))


def _result(run: Run, target: Target) -> StudyResult:
    looked = [_looked_into(run, number, item, target) for number, item in enumerate(items_of(run))]
    survey = survey_of(run, target, tuple(finding for finding, _ in looked))
    sentences = list(survey.sentences)
    if survey.agreement is not None:
        sentences.append(agreement(survey.agreement.to_json()))
    return StudyResult(
        study=survey.study,
        status=survey.status,
        spec={
            "asking": {name: survey.settings[name] for name in ("model", "seed")},
            "method": survey.settings["method"],
            "labels": run.spec.identity.get("labels"),
        },
        target=target,
        items=len(looked),
        findings=_findings([(found, trace) for found, trace in looked if trace is not None], sentences, target),
        failed={found.item: ("item", found.failure) for found, _ in looked if found.failure is not None},
        cost={name: survey.summary[name] for name in ("continuations", "generated_tokens")},
        waiting=sum(found.status in UNFINISHED for found, _ in looked),
    )


def _looked_into(run: Run, number: int, item: str, target: Target) -> tuple[Finding, Trace | None]:
    """What came of an item, and its result where it has one."""
    found = finding_of(run, number, target)
    if found is not None and not found.analysed:
        return found, None
    if run.document(named("path", number)) is None:
        return Finding(item, WAITING), None
    trace = stored_generation(run, number, target)
    return found or Finding.of(item, trace), trace


def _findings(found: Sequence[tuple[Finding, Trace]], sentences: Sequence[str], target: Target) -> Findings:
    if not found:
        return Findings({}, {}, sentences)
    said = [(finding, said_of(trace)) for finding, trace in found]
    windows = [window_row(finding.item, of["tokens"], window) for finding, of in said for window in of["windows"]]
    curves = [row for finding, of in said for row in curve_rows(of["curve"], item=finding.item)]
    tables: dict[str, Sequence[Row]] = {
        "generations": [_row(finding, of) for finding, of in said],
        "windows": windows,
        "places": place_rows(windows) if windows else (),
        "mean_curves": mean_curve({finding.item: finding.item for finding, _ in found}, curves, target.level),
        "curves": curves,
    }
    texts = [
        Transcript(finding.item, finding.final_label, pieces_of(trace), str(trace.settings.get("prompt") or ""))
        for finding, trace in found
    ]
    return Findings({}, tables, sentences, tuple(texts))


def _row(finding: Finding, said: dict[str, Any]) -> Row:
    return {
        "item": finding.item,
        "label": finding.final_label,
        "windows": len(finding.windows),
        **{name: said[name] for name in ("tokens", "covered", "largest_jump", "largest_fall", "error")},
        "unrecorded_weight": finding.unrecorded_weight,
        "labels": len(finding.labels),
        "continuations": finding.continuations,
        "generated_tokens": finding.generated_tokens,
        "status": finding.status,
    }
