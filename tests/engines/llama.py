"""llama.cpp's own server on the embedded model's file, in a process of its own so that it can be killed.

python tests/engines/llama.py [PORT]     prints its address, then serves until it is killed
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field

from blinkscope.engines.smollm2 import find_weights

SLOTS, SLOT_TOKENS = 4, 512


@dataclass
class LlamaProcess:
    """The server's process; it can be killed and started again at the same address, which is kept for it meanwhile."""

    port: int = field(init=False)
    process: subprocess.Popen[str] = field(init=False)
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self._kept = socket.socket()
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._kept.bind(("127.0.0.1", 0))
        self.port = self._kept.getsockname()[1]
        self.start()

    def start(self) -> None:
        command = [sys.executable, __file__, str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def main() -> None:
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(find_weights())
    settings.port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    settings.n_parallel, settings.n_ctx = SLOTS, SLOTS * SLOT_TOKENS
    # Threads that wait for one another by spinning are many times slower on a busy machine.
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
