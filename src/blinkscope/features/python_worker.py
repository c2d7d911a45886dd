"""The process in which a user's function runs; ``features/python.py`` starts it as a script and talks to it.

One JSON object a line each way. In: first ``{"path", "module", "function"}``, then ``{"text"}`` for each reply, or
``{"array", "shape"}``, little-endian doubles in base64, for each picture. Out: ``{"label"}``, ``{"trouble"}`` (the
function went wrong) or ``{"missing"}`` (there is no such function). Nothing is pickled. It imports the standard library
only, so that the user's module finds a fresh interpreter, and numpy where the first array comes.
"""

from __future__ import annotations

import base64
import difflib
import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

MESSAGE = 300
"""Characters that are kept of an exception's message."""
_GRACE_SECONDS = 1.0


def raised(error: BaseException) -> str:
    """An exception in a few words. Its message may quote hostile text, so control characters are spelled out."""
    try:
        message = str(error)
    except Exception:
        message = ""
    return f"raised {type(error).__name__}" + (f" ({message[:MESSAGE]!r})" if message else "")


def returned(value: object) -> str:
    """What is wrong with a value that is neither a string nor None."""
    return f"returned a value of type {type(value).__name__}; a label is a string, or None where nothing is found"


def main() -> None:
    incoming, outgoing = _private_channels()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(incoming, lines), daemon=True).start()

    def answer(content: dict[str, Any]) -> None:
        outgoing.write(json.dumps(content).encode() + b"\n")
        outgoing.flush()

    # The function runs in the main thread, where signals and their alarms work.
    request = json.loads(lines.get())
    sys.path[:] = request["path"]
    try:
        function = _load(request["module"], request["function"])
    except LookupError as error:
        answer({"missing": error.args[0]})
        return
    except BaseException as error:
        answer({"missing": f"importing {request['module']} {raised(error)}"})
        return
    answer({})
    while line := lines.get():
        try:
            label = function(_argument(json.loads(line)))
        except BaseException as error:
            answer({"trouble": raised(error)})
            continue
        answer({"label": label} if label is None or isinstance(label, str) else {"trouble": returned(label)})


def _argument(request: dict[str, Any]) -> Any:
    """What the function is called with."""
    if "text" in request:
        return request["text"]
    import numpy as np

    numbers = np.frombuffer(base64.b64decode(request["array"]), dtype="<f8")
    return numbers.reshape(request["shape"]).copy()  # writable


def _private_channels() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes, moved out of the way: what the function prints goes to stderr, and it finds stdin empty."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return incoming, outgoing


def _read(incoming: BinaryIO, lines: queue.SimpleQueue[bytes]) -> None:
    """Hand over lines; when the other side is gone, end this process and what it started, even one that hangs."""
    for line in incoming:
        lines.put(line)
    lines.put(b"")
    time.sleep(_GRACE_SECONDS)
    if hasattr(os, "killpg"):
        os.killpg(os.getpid(), signal.SIGKILL)  # this process began its session
    os._exit(1)


def _load(module_name: str, function_name: str) -> Callable[[Any], Any]:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise LookupError(
            f"there is no module {error.name!r}; it is looked for in the current folder, {os.getcwd()}, "
            "in PYTHONPATH and among the installed packages"
        ) from None
    function = getattr(module, function_name, None)
    if callable(function):
        return function
    if function is not None:
        raise LookupError(
            f"{function_name!r} in module {module_name!r} is of type {type(function).__name__}, not a function"
        )
    there = [name for name in vars(module) if not name.startswith("_") and callable(getattr(module, name))]
    close = difflib.get_close_matches(function_name, there, n=1, cutoff=0) if there else []
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise LookupError(f"module {module_name!r} has no function {function_name!r}{hint}")


if __name__ == "__main__":
    main()
