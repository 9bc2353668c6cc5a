"""A real Prometheus, Alertmanager and webhook on free ports of the loopback, which scrape and judge every second."""

import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.redis_server import tied

PROGRAMS = ("prometheus", "prometheus-alertmanager")

_PATIENCE = 30.0
"""Seconds to wait for the first answer."""

_PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs: [{{job_name: app, static_configs: [{{targets: ["127.0.0.1:{app}"]}}]}}]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["127.0.0.1:{alertmanager}"]}}]}}]}}
"""

_ALERTMANAGER = """
route: {{receiver: hook, group_by: [alertname], group_wait: 0s, group_interval: 1s}}
receivers: [{{name: hook, webhook_configs: [{{url: "http://127.0.0.1:{hook}/"}}]}}]
"""


class PrometheusStack:
    """Scrape the exporter on port *app* and judge it by the file *rules*; alerts arrive in `received`.

    Start it in the main thread: the servers end with the thread that started them.
    """

    def __init__(self, *, app: int, rules: Path) -> None:
        self.received: list[dict[str, Any]] = []
        self._app, self._rules = app, rules
        self._folder = Path(tempfile.mkdtemp(prefix="prometheus-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._hook = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._port, self._alertmanager = _free_port(), _free_port()

    def query(self, expr: str) -> list[dict[str, Any]]:
        """List the series that *expr* gives now; ValueError if Prometheus refuses it."""
        asked = urllib.parse.urlencode({"query": expr})
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/v1/query?{asked}", timeout=10) as reply:
                return list(json.load(reply)["data"]["result"])
        except urllib.error.HTTPError as refused:
            raise ValueError(f"{expr}: {refused.read().decode()}") from refused

    def alerts(self) -> set[tuple[str, str]]:
        """List name and status of each alert that the webhook received."""
        return {(a["labels"]["alertname"], a["status"]) for message in self.received for a in message["alerts"]}

    def __enter__(self) -> Self:
        """Start all three and wait until they answer."""
        threading.Thread(target=self._hook.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        ports = {"app": self._app, "alertmanager": self._alertmanager, "hook": self._hook.server_port}
        (self._folder / "prometheus.yml").write_text(_PROMETHEUS.format(rules=json.dumps(str(self._rules)), **ports))
        (self._folder / "alertmanager.yml").write_text(_ALERTMANAGER.format(**ports))
        where = f"--storage.path={self._folder}/alertmanager", "--cluster.listen-address="
        self._start("prometheus-alertmanager", self._alertmanager, "alertmanager.yml", *where)
        self._start("prometheus", self._port, "prometheus.yml", f"--storage.tsdb.path={self._folder}/tsdb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill them and leave nothing behind."""
        for process in self._processes:
            process.kill()
            process.wait(_PATIENCE)
        self._hook.shutdown()
        self._hook.server_close()
        shutil.rmtree(self._folder)

    def _start(self, program: str, port: int, config: str, *options: str) -> None:
        command = [shutil.which(program) or program, f"--config.file={self._folder / config}", *options]
        with (self._folder / "log").open("ab") as log:
            listen = f"--web.listen-address=127.0.0.1:{port}"
            process = subprocess.Popen([*tied(), *command, listen], stdout=log, stderr=subprocess.STDOUT)
        self._processes.append(process)
        give_up = time.monotonic() + _PATIENCE
        while not _answers(f"http://127.0.0.1:{port}/-/ready"):
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{program} does not answer: {(self._folder / 'log').read_text()}")
            time.sleep(0.05)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=1) as reply:
        return bool(reply.status == 200)
    return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
