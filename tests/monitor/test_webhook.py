"""Alerts over HTTP: delivered in the background, tried again, counted when lost."""

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from llm_costopt.monitor.alerts import Alert
from llm_costopt.monitor.webhook import Webhook

SOON = 10.0

ALERT = Alert(
    name="LLMQueueOld", state="firing", about="", severity="warning", value=400.0, limit=300.0, text="Old.", at=1.0
)


class Inbox:
    """A server that answers with the statuses it is given, then 200."""

    def __init__(self, *statuses: int) -> None:
        self.got: list[tuple[dict[str, str], Any]] = []
        self.asked: list[str] = []
        self.wait = threading.Event()
        self.wait.set()
        inbox, left = self, list(statuses)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                inbox.wait.wait(SOON)
                inbox.got.append((dict(self.headers), json.loads(body)))
                self.send_response(left.pop(0) if left else 200)
                self.send_header("Location", "/elsewhere")  # heeded with 3xx only
                self.end_headers()

            def do_GET(self) -> None:
                inbox.asked.append(self.path)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=secret"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        """End the server."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(SOON)


@pytest.fixture
def inbox(request: pytest.FixtureRequest) -> Iterator[Inbox]:
    """Run a server."""
    inbox = Inbox(*getattr(request, "param", ()))
    yield inbox
    inbox.close()


def test_an_alert_arrives_as_json(inbox: Inbox) -> None:
    """The body holds the alert's fields, and headers of one's own come along."""
    hook = Webhook(inbox.url, headers={"Authorization": "Bearer x"})
    hook(ALERT)
    hook.close()
    ((headers, body),) = inbox.got

    assert body["name"] == "LLMQueueOld"
    assert body["state"] == "firing"
    assert body["text"] == "Old."
    assert headers["Authorization"] == "Bearer x"
    assert headers["Content-Type"] == "application/json"
    assert hook.failures == 0


def test_an_alert_without_a_finite_value_is_json_too(inbox: Inbox) -> None:
    """What JSON has no number for is null: a job's expiry is over when no job runs any more."""
    hook = Webhook(inbox.url)
    hook(replace(ALERT, value=float("inf")))
    hook.close()
    ((_, body),) = inbox.got

    assert (body["value"], body["limit"]) == (None, 300.0)


@pytest.mark.parametrize("inbox", [(503, 500)], indirect=True)
def test_it_tries_again(inbox: Inbox) -> None:
    """Two errors and a success are a delivery."""
    hook = Webhook(inbox.url, retries=(0.0, 0.0))
    hook(ALERT)
    hook.close()

    assert len(inbox.got) == 3
    assert hook.failures == 0


@pytest.mark.parametrize("inbox", [(500, 500)], indirect=True)
def test_what_is_lost_is_counted(inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    """After the last try the alert is lost, counted and logged without the URL; the next one is sent."""
    hook = Webhook(inbox.url, retries=(0.0,))
    with caplog.at_level(logging.WARNING):
        hook(ALERT)
        hook(ALERT)
        hook.close()

    assert hook.failures == 1
    assert len(inbox.got) == 3
    assert "secret" not in caplog.text


def test_it_never_waits_for_the_other_side(inbox: Inbox) -> None:
    """A server that does not answer holds nobody up: a hundred alerts wait, further ones are lost and counted."""
    inbox.wait.clear()
    hook = Webhook(inbox.url)
    for _ in range(150):
        hook(ALERT)
    lost = hook.failures
    inbox.wait.set()
    hook.close()

    assert 49 <= lost <= 50  # one may be on its way already
    assert len(inbox.got) == 150 - lost


@pytest.mark.parametrize("url", ["file:///etc/passwd", "hooks.example.com/x", "ftp://x/y", "", None, 5])
def test_only_http_is_a_webhook(url: Any) -> None:
    """Another scheme is refused at once."""
    with pytest.raises(ValueError, match="http"):
        Webhook(url)


@pytest.mark.parametrize("inbox", [(302, 307)], indirect=True)
def test_a_redirect_is_no_delivery(inbox: Inbox) -> None:
    """It is followed nowhere, neither with the login nor as a GET without the alert, and counts as a failure."""
    hook = Webhook(inbox.url, headers={"Authorization": "Bearer x"}, retries=(0.0,))
    hook(ALERT)
    hook.close()

    assert len(inbox.got) == 2
    assert inbox.asked == []
    assert hook.failures == 1


def test_a_header_that_cannot_be_sent_is_not_logged(inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    """A login that was read with its line's end is counted as a failure, and stays out of the log."""
    hook = Webhook(inbox.url, headers={"Authorization": "Bearer secret\n"})
    with caplog.at_level(logging.WARNING):
        hook(ALERT)
        hook.close()

    assert hook.failures == 1
    assert "A webhook failed (ValueError)" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "rest", ["h/secret b", "h/secret\n", "h:99999/secret", "h/s\xe9cret", "[/secret", ":80/secret", "h:0/secret"]
)
def test_a_url_that_cannot_be_asked_is_refused_without_quoting_it(rest: str) -> None:
    """What urllib would say of it at the first alert holds the secret."""
    with pytest.raises(ValueError, match="http") as told:
        Webhook(f"https://{rest}")

    assert "secret" not in str(told.value)
