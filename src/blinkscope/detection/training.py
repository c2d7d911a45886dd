"""From labelled texts to a trained probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from blinkscope.detection.probe import Probe, train_probe
from blinkscope.detection.reading import Side, check_layer, mean_activation
from blinkscope.detection.texts import conversation_of
from blinkscope.errors import UserError
from blinkscope.studies.study import StudyItem


@dataclass(frozen=True)
class Trained:
    """A probe, and why texts were left out of its training, by id."""

    probe: Probe
    left_out: dict[str, str]


def train_on(
    items: Sequence[StudyItem],
    side: Side,
    layer: int,
    *,
    seed: int = 0,
    begin: Callable[[int, int], None] = lambda number, items: None,
) -> Trained:
    """Read every labelled text with the aligned model and train a probe on its activations after ``layer`` layers.

    begin : called with number and number of texts before each one is read.

    Raises
    ------
    UserError : the model shows no activations or has no such layer, or too few texts are left.
    """
    check_layer(side, layer)
    activations, labels, left_out = [], [], {}
    for number, item in enumerate(items, 1):
        begin(number, len(items))
        content = item.content
        try:
            if "problem" in content:
                raise UserError(str(content["problem"]))
            if content["label"] is None:
                raise UserError("it has no label.")
            activation = mean_activation(side, conversation_of(content), str(content["completion"]), layer)
        except UserError as error:
            left_out[item.id] = str(error)
        else:
            activations.append(activation)
            labels.append(content["label"])
    x = np.array(activations).reshape(len(labels), -1)
    probe = train_probe(
        x, np.array(labels, dtype=int), model=side.engine.name, system=side.system, layer=layer, seed=seed
    )
    return Trained(probe, left_out)
