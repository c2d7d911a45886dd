"""Colours of every figure: Okabe and Ito (2008), told apart with every kind of colour vision."""

from __future__ import annotations

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # their yellow is too light for lines
WINDOW_COLOUR, WINDOW_EDGE = "#F0E442", "#C9B400"  # the edge keeps one token of a long text in sight
