"""``study replay``: every generation of a file of recorded rollouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from blinkscope.converters import read_recorded
from blinkscope.errors import UserError
from blinkscope.estimate.loop import Progress
from blinkscope.estimate.trace import Target
from blinkscope.keeper import Keeper
from blinkscope.recorded import analyse, file_of, name_of, refuse_unread, spec_of, split_options
from blinkscope.replay_formats import Item
from blinkscope.reread import items_of
from blinkscope.runs.store import Run
from blinkscope.studies.survey import Finding, Survey, store_finding, stored_finding, survey_of


def study_replay(
    model: str,
    run: str | Path,
    *,
    target: Target | None = None,
    begin: Callable[[int, int, Item], None] = lambda number, items, item: None,
    watch: Callable[[Progress], None] = lambda progress: None,
    **options: Any,
) -> Survey:
    """Say for every generation of ``replay:FILE`` where it was decided; one run file keeps them all.

    An item that cannot be analysed is counted as failed and the others go on. A run file that exists is continued with
    the first item that is not finished.

    Parameters
    ----------
    begin : called with number, number of items and item before each item that is not finished yet.
    options : fields of ``Reading`` (``method``, ``seed``, ``labels``) and of ``Target``.
    """
    reading, target = split_options(target, options)
    name, items = name_of(model), {item.id: item for item in read_recorded(file_of(model))}
    refuse_unread(items.values(), reading, options)
    with Run.create_or_open(run, spec_of(name, [*items.values()], reading, target, study="replay")) as file:
        # The numbers are those of the run file; the lines of the other one may have been put in another order since.
        for number, item in enumerate(map(items.__getitem__, items_of(file))):
            if stored_finding(file, number, target) is not None:
                continue
            begin(number, len(items), item)
            with Keeper(file, number) as keeper:
                try:
                    record = keeper.record or reading.record(item, name, number)
                except UserError as error:
                    finding = Finding(item.id, "failed", str(error))
                else:
                    finding = Finding.of(item.id, analyse(item, record, record.aim_of(target), keeper, watch=watch))
            if finding.status == "interrupted":
                break
            store_finding(file, number, target, finding)
        else:
            file.complete("complete")
        return survey_of(file, target)
