"""The studies by name; each is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from blinkscope.runs.store import Run
from blinkscope.studies.study import Study, StudyResult, study_of

STUDIES = {
    "prefill": "studies.prefill:STUDY",
    "repeat": "studies.repeat:STUDY",
    "structured": "studies.structured:STUDY",
    "distribution": "studies.distribution:STUDY",
    "diffusion": "studies.diffusion:STUDY",
    "cot": "studies.cot:STUDY",
    "temperature": "studies.cot:TEMPERATURE",
    "majority": "studies.majority:STUDY",
    "detect": "detection.study:STUDY",
}
"""Module and name of each study."""


def find_study(name: str) -> Study | None:
    """The study of that name; None where there is none."""
    if name not in STUDIES:
        return None
    module, _, attribute = STUDIES[name].partition(":")
    study: Study = getattr(import_module(f"blinkscope.{module}"), attribute)
    return study


def stored_study(path: str | Path, **changes: Any) -> StudyResult | None:
    """What the run file of a study holds, without its model; None for any other run.

    ``changes`` replace fields of its ``Target``.
    """
    with Run.open(path) as run:
        return study_of(run, find_study, **changes)
