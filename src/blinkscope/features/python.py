"""``python:MODULE:FUNCTION``: a user's own function from text to label.

A function named in words runs in a process of its own, which can be ended when it hangs. A function that is handed over
in Python (``feature_of``) runs where it is.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from blinkscope.errors import EngineError, UserError
from blinkscope.feature import Feature, Reply
from blinkscope.features import python_worker
from blinkscope.features.reading import MAX_LABEL, cut, well_formed

TIME_LIMIT = 10.0
"""Seconds that a function may take for one reply."""
IMPORT_TIME_LIMIT = 120.0
"""Seconds that importing its module may take."""
_CLOSING_SECONDS = 2.0
_FIRST_WORDS = 60


@dataclass(frozen=True)
class PythonFunction:
    """A function ``str -> str | None`` at the top level of an importable module, run in a worker process.

    The module is looked for where Python looks, the current folder first. The worker starts with ``start``, or with
    the first reply, serves all others and ends with this process. What the function prints goes to stderr.

    time_limit: seconds for one reply; then the worker is killed. Importing the module has ``IMPORT_TIME_LIMIT``.

    Raises
    ------
    UserError : from ``label``, where module or function is not found, or the function raises, hangs, ends its process
        or returns something other than None or a string with something in it.
    """

    module: str
    function: str
    time_limit: float = TIME_LIMIT
    _worker: _Worker = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not all(part.isidentifier() for part in (*self.module.split("."), self.function)):
            raise UserError(
                f"the feature {self.name!r} does not name a function; write python:MODULE:FUNCTION, "
                "for instance python:my_module:my_function."
            )
        if not self.time_limit > 0:
            raise UserError(f"the time limit of a feature is {self.time_limit}; give a positive number of seconds.")
        object.__setattr__(self, "_worker", _Worker(self.module, self.function))

    @classmethod
    def open(cls, text: str) -> PythonFunction:
        """The feature that ``MODULE:FUNCTION`` spells."""
        module, _, function = text.partition(":")
        return cls(module, function)

    @property
    def name(self) -> str:
        return f"python:{self.module}:{self.function}"

    def start(self) -> None:
        """Start the worker, which finds the function."""
        self._found(self._worker.start())

    def label(self, reply: Reply) -> str | None:
        return self._label({"text": well_formed(reply.text)}, _beginning(reply))

    def label_array(self, array: Any) -> str | None:
        """The label of a numpy array, which the function is called with instead of a text; a picture, for instance."""
        content = base64.b64encode(array.astype("<f8").tobytes()).decode("ascii")
        shown = f"it was given an array of shape {array.shape}"
        return self._label({"array": content, "shape": list(array.shape)}, shown)

    def _label(self, content: dict[str, Any], shown: str) -> str | None:
        answer = self._found(self._worker.ask(content, self.time_limit))
        if "trouble" in answer:
            raise _trouble(self.name, answer["trouble"], shown)
        return _checked(self.name, answer["label"], shown)

    def _found(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The worker's answer, where it is not that there is no such function."""
        if "missing" in answer:
            raise UserError(f"feature {self.name!r}: {answer['missing']}.")
        return answer


def feature_of(function: Callable[[str], str | None]) -> Feature[Reply]:
    """A feature from a function ``str -> str | None``, which is called in this process and without a time limit.

    It is named ``python:MODULE:FUNCTION`` where that spelling finds the same function again, else
    ``callable:QUALIFIED_NAME``, which only describes it (a lambda, a function of a notebook).
    """
    if not callable(function):
        raise UserError(f"a feature is a name or a function from text to label, but {function!r} was given.")
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    importable = module != "__main__" and getattr(sys.modules.get(module), name, None) is function
    return _CallableFeature(function, f"python:{module}:{name}" if importable else f"callable:{name}")


@dataclass(frozen=True)
class _CallableFeature:
    function: Callable[[str], str | None]
    name: str

    def label(self, reply: Reply) -> str | None:
        try:
            label = self.function(well_formed(reply.text))
        except Exception as error:
            raise _trouble(self.name, python_worker.raised(error), _beginning(reply)) from error
        if label is not None and not isinstance(label, str):
            raise _trouble(self.name, python_worker.returned(label), _beginning(reply))
        return _checked(self.name, label, _beginning(reply))


def _checked(name: str, label: str | None, shown: str) -> str | None:
    if label is None:
        return None
    if not label.strip():
        raise _trouble(name, f"returned {label!r}; a label has characters to see, or is None", shown)
    return cut(well_formed(label), MAX_LABEL)


def _trouble(name: str, trouble: str, shown: str) -> UserError:
    return UserError(f"feature {name!r} {trouble}; {shown}.")


def _beginning(reply: Reply) -> str:
    return f"the reply begins {cut(reply.text, _FIRST_WORDS)!r}"


class _Worker:
    """The other process: started when first asked, killed when it hangs, started again when asked again."""

    def __init__(self, module: str, function: str) -> None:
        self._module, self._function = module, function
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self) -> dict[str, Any]:
        """Start the process where it does not run; what is ``missing``, or nothing."""
        with self._lock:
            return self._start()

    def ask(self, content: dict[str, Any], time_limit: float) -> dict[str, Any]:
        """The worker's answer about one ``text`` or ``array``: ``label``, ``trouble`` or ``missing``."""
        with self._lock:
            return self._start() or self._exchange(content, time_limit)

    def _start(self) -> dict[str, Any]:
        if self._process is not None:
            return {}
        try:
            # -P: the folder of the script is not put on the path. A session of its own: Ctrl-C reaches us, not the
            # worker, and what it starts can be ended with it.
            self._process = process = subprocess.Popen(
                [sys.executable, "-P", python_worker.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(
                f"no process could be started for python:{self._module}:{self._function}: {error}."
            ) from error
        self._finalizer = weakref.finalize(self, _close, process)
        # An empty entry of sys.path is the current folder.
        greeting = self._exchange(
            {"path": ["", *sys.path], "module": self._module, "function": self._function}, IMPORT_TIME_LIMIT
        )
        if greeting and self._process is not None:
            self._end()
        return {"missing": f"importing {self._module} {greeting['trouble']}"} if "trouble" in greeting else greeting

    def _exchange(self, request: dict[str, Any], time_limit: float) -> dict[str, Any]:
        """Send one line and read one. The alarm kills the process, which ends a blocked write as well as a read."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            _kill(process)

        alarm = threading.Timer(time_limit, give_up)
        alarm.daemon = True
        alarm.start()
        line = b""
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            pass  # the process is gone: there is no answer
        except BaseException:
            _kill(process)  # interrupted: the next answer would belong to this question
            self._end()
            raise
        finally:
            alarm.cancel()
            alarm.join()
        if line.endswith(b"\n") and not late.is_set():
            return dict(json.loads(line))
        status = self._end()
        if late.is_set():
            return {"trouble": f"gave no label within {time_limit:g} seconds"}
        return {"trouble": f"ended its own process (exit status {status})"}

    def _end(self) -> int:
        """Kill the process and forget it; its exit status."""
        process, self._process = self._process, None
        assert process is not None
        self._finalizer.detach()
        return _close(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it has started."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _close(process: subprocess.Popen[bytes]) -> int:
    """Let the process end by itself, which it does once nobody can ask it any more, and kill it if it does not."""
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            pipe.close()  # type: ignore[union-attr]
    try:
        return process.wait(_CLOSING_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(process)
        return process.wait()
