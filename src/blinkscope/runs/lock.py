"""One writer per run file.

The lock is the operating system's, held on a small file beside the run file, so that it dies with the process however
that ends. SQLite's own locks would not do: they are let go after every transaction, and readers must not be kept out.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from blinkscope.errors import UserError

PID_BYTES = 20  # at most, of what a lock holds
_held: set[Path] = set()  # POSIX locks do not keep out the process that holds them; this does


class Lock:
    """The exclusive right to write one run file, from here until ``release``.

    Raises
    ------
    UserError : another process, or this one, is working on the file.
    """

    def __init__(self, run_file: Path) -> None:
        if run_file in _held:
            raise UserError(f"{run_file} is already being worked on by this process; close that run first.")
        self._run_file = run_file
        self._path = run_file.with_name(run_file.name + ".lock")
        self._descriptor = self._acquire()
        _held.add(run_file)
        with contextlib.suppress(OSError):  # only for the other one's message; a full disk is found out soon enough
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, str(os.getpid()).encode())

    def release(self) -> None:
        """Let go and leave no file behind."""
        _held.discard(self._run_file)
        # The name goes before the lock, so that nobody can lock a file that is about to lose its name. Windows does not
        # delete open files: there the name goes last, and stays where somebody else has opened it by then.
        if sys.platform == "win32":
            os.close(self._descriptor)
        with contextlib.suppress(OSError):
            self._path.unlink()
        if sys.platform != "win32":
            os.close(self._descriptor)

    def _acquire(self) -> int:
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            if os.fstat(descriptor).st_size > PID_BYTES:
                os.close(descriptor)
                raise UserError(f"{self._path} is no lock of blinkscope; move it, or choose another run file.")
            if not _try_lock(descriptor):
                owner = os.read(descriptor, PID_BYTES).decode("ascii", "replace")
                os.close(descriptor)
                who = f"another process (pid {owner})" if owner.isdigit() else "another process"
                raise UserError(f"{who} is working on {self._run_file}; wait for it or choose another file with -o.")
            if _is_named(descriptor, self._path):
                return descriptor
            os.close(descriptor)  # its owner removed the name just before we got the lock


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 2**20, os.SEEK_SET)  # past the pid, which must stay readable
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
