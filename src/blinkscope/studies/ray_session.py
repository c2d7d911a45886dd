"""A Ray cluster for the time of one study: one that is begun here and ends with it, or one that is there already.

A Ray that is begun here has no dashboard, sends no usage statistics, uploads no packages, answers to nobody without
the token that it keeps in this user's home, and finds no key in its environment; its folder is removed at the end.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from blinkscope.errors import EngineError, MissingExtra, UserError

LOCAL, AUTO = "local", "auto"
CONNECT_SECONDS = 5.0
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""What a client of HTTP/2 begins with (RFC 9113, 3.4): the preface, and settings of which none are changed."""
SETTINGS = b"\4"
TRIES = {"RAY_NUM_REDIS_GET_RETRIES": "5"}
"""How often Ray tries to join a cluster, with a second between; by itself 20 times, whatever the reason."""
OBJECT_STORE = 96 * 2**20  # bytes; only small messages go through it
LONGEST_FOLDER = 40  # characters: names of sockets inside of it must stay below a hundred
SECRET = re.compile(
    r"((KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)S?|PASSWD|PASSPHRASE|_PASS|_PWD|_PAT)(_ID)?$", re.IGNORECASE
)
TOKEN = Path.home() / ".ray" / "auth_token"
MODE = "RAY_AUTH_MODE"
ADVICE = (
    f"If the cluster wants a token, put it into {TOKEN} or RAY_AUTH_TOKEN and set {MODE}=token; if it wants none, set "
    f"{MODE}=disabled."
)
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_DEDUP_LOGS": "0"}


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables whose name does not say that a key, a token or a password stands in them."""
    return {name: value for name, value in environment.items() if not SECRET.search(name)}


@contextmanager
def ray_at(address: str) -> Iterator[Any]:
    """The module ``ray``, connected.

    address : ``local`` begins a cluster on this machine, ``auto`` takes the one that runs here, HOST:PORT another one.

    Raises
    ------
    MissingExtra : Ray is not installed.
    UserError : this is no address.
    EngineError : no cluster answers there, or none that this Ray can talk to.
    """
    if find_spec("ray") is None:
        raise MissingExtra("--ray", "ray")
    if address not in (LOCAL, AUTO):
        _check(address)
    folder = tempfile.mkdtemp(prefix="blinkscope-") if address == LOCAL else None
    local: dict[str, Any] = {}
    if address == LOCAL:
        local = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
        if folder is not None and len(folder) <= LONGEST_FOLDER:
            local["_temp_dir"] = folder
    try:
        with _authentication(local=address == LOCAL):
            ray = _connected(address, local)
            with redirect_stdout(sys.stderr):  # Ray prints there that a worker died; stdout is the result's
                try:
                    yield ray
                finally:
                    ray.shutdown()
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def first_sentence(error: BaseException) -> str:
    """The first line of what Ray says, which is the one for people."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".")[:300] + "." if lines else f"{type(error).__name__}."


def _check(address: str) -> None:
    """Refuse at once what is no address, or where no cluster listens: Ray itself would wait for long, or for ever."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536) or "/" in address:
        raise UserError(f"--ray is {address!r}; give HOST:PORT of a cluster, auto for the one here, or nothing.")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS) as connection:
            greets = os.environ.get("RAY_USE_TLS") == "1" or _greets(connection)
    except OSError as error:
        reason = (error.strerror or str(error) or "no answer").lower()
        raise EngineError(
            f"no Ray cluster answers at {address} ({reason}); start it with ray start --head, or mend the address."
        ) from error
    if not greets:
        raise EngineError(f"what answers at {address} is no Ray cluster; mend the address.")


def _greets(connection: socket.socket) -> bool:
    """Whether the other side speaks HTTP/2, as clusters do: the first frame that it sends holds settings."""
    connection.sendall(GREETING)
    return connection.recv(9, socket.MSG_WAITALL)[3:4] == SETTINGS


def _connected(address: str, settings: Mapping[str, Any]) -> Any:
    try:
        with _environment(local=address == LOCAL), _silence(), _uninterrupted() if address == LOCAL else nullcontext():
            import ray

            logging.getLogger("ray").setLevel(logging.ERROR)
            ray.init(address=address, log_to_driver=False, configure_logging=False, **settings)
        return ray
    except KeyboardInterrupt:
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()
        raise
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        if address == LOCAL:
            raise EngineError(f"Ray cannot begin here: {first_sentence(error)}") from error
        if address == AUTO and "Could not find any running Ray" in str(error):
            raise EngineError(
                "no Ray cluster runs on this machine; start one with ray start --head, or give --ray no address."
            ) from error
        raise EngineError(f"no Ray cluster can be used at {address}: {first_sentence(error)} {ADVICE}") from error


@contextmanager
def _authentication(*, local: bool) -> Iterator[None]:
    """Authentication by token where the user does not say otherwise and there is a token. A cluster that is begun here
    gets one from Ray, which sets the variable itself; what becomes of it ends here."""
    before = os.environ.get(MODE)
    if before is None and not local and TOKEN.is_file():
        os.environ[MODE] = "token"
    try:
        yield
    finally:
        os.environ.pop(MODE, None)
        if before is not None:
            os.environ[MODE] = before


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing on this process's stderr: Ray's core writes there, a line each second, while it cannot connect."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A first ^C counts at the end only: amid imports and callbacks of the interpreter it could be lost."""
    came: list[int] = []

    def later(number: int, frame: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, later)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


@contextmanager
def _environment(*, local: bool) -> Iterator[None]:
    """The environment that Ray begins or joins a cluster in, where the processes of a local one are born. What Ray adds
    to it stays."""
    before = dict(os.environ)
    taken = before.keys() - without_secrets(before).keys() if local else set()
    for name in taken:
        del os.environ[name]
    os.environ.update(_QUIET)
    if not local:
        for name, value in TRIES.items():
            os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in (*taken, *_QUIET, *TRIES):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]
