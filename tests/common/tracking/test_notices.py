"""Notices go out once an event, to a real web address and a real mail server on loopback; whatever
happens there, nothing fails and the address is in no log.
"""

import email
import email.policy
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.common.runtime.errors import ParamsError
from stages.common.runtime.logs import log
from stages.common.tracking import notices
from tests.support.loopback import running
from tests.support.notified import Mail, Webhook

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(log, "propagate", True)


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with running(Webhook()) as server:
        monkeypatch.setenv(notices.KEY, server.url)
        yield server


def test_a_web_address_gets_each_event_once(webhook: Webhook) -> None:
    sent = [notices.send(event, "title", "text") for event in ("one", "two", "one")]
    assert sent == [True, True, False]
    assert [body["event"] for body in webhook.seen] == ["one", "two"]
    assert webhook.seen[0]["title"] == "title"
    assert webhook.seen[0]["text"].splitlines() == ["title", "text", f"{socket.gethostname()}: {Path.cwd()}"]


def test_a_mail_server_gets_a_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Mail()) as server:
        monkeypatch.setenv(notices.KEY, server.url)
        assert notices.send("event", "version 3 of lathe waits", "besser als 中文")
    ((recipients, text),) = server.seen
    mail = email.message_from_string(text, policy=email.policy.default)
    body = mail.get_body(("plain", "html"))
    assert recipients == ["ann@example.org"]
    assert "version 3 of lathe waits" in mail["Subject"] and body is not None
    assert "besser als 中文" in body.get_content()


@pytest.mark.parametrize("kind", ["refuses", "away", "mail away"])
def test_an_address_that_does_not_take_it_is_a_warning_without_the_address(
    kind: str, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as nobody:  # bound and not listening: a connection is refused
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        webhook.answer = 500
        mail = f"mailto://ann:s3cret@127.0.0.1:{port}?from=ann@example.org&to=ann@example.org&mode=insecure"
        away = {"away": f"http://127.0.0.1:{port}/s3cret", "mail away": mail}
        monkeypatch.setenv(notices.KEY, away.get(kind, webhook.url))
        with caplog.at_level(logging.DEBUG):
            assert not notices.send("event", "title", "text")
    ours = [record.getMessage() for record in caplog.records if record.name == "lathe"]
    assert len(ours) == 1 and ours[0].startswith("no notice that event: the address of LATHE_NOTIFY (")
    assert "s3cret" not in caplog.text and "t0ken" not in caplog.text
    webhook.answer = 200  # the same event again goes out, once
    monkeypatch.setenv(notices.KEY, webhook.url)
    assert [notices.send("event", "title", "text") for _ in range(2)] == [True, False]


def test_what_goes_where() -> None:
    slack = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    kinds = {url: notices.is_webhook(url) for url in (slack, "mailto://a:b@example.org", "https://example.org/x")}
    assert list(kinds.values()) == [False, False, True]


@pytest.mark.parametrize("url", ["sl4ck://x", "ann@example.org", "https://", "mailto://"])
def test_an_address_that_nothing_understands_is_refused_in_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(notices.KEY, url)
    with pytest.raises(ParamsError, match="LATHE_NOTIFY: nothing sends to"):
        notices.address()
    assert not notices.send("event", "title", "text")


def test_a_version_that_waits_is_told_once_however_often_the_gate_looks(webhook: Webhook) -> None:
    for number, weights in (("3", "a" * 64), ("3", "a" * 64), ("4", "b" * 64)):
        notices.waits("lathe", number, weights, "better")
    titles = [body["title"] for body in webhook.seen]
    assert titles == [f"version {number} of lathe waits for a review" for number in (3, 4)]
    assert "make approve VERSION=3" in webhook.seen[0]["text"] and webhook.seen[0]["text"].splitlines()[1] == "better"


def test_whether_it_works_is_a_command(webhook: Webhook) -> None:
    command = [sys.executable, "-m", "stages.common.tracking.notices"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "lathe: sent\n"), done.stderr
    assert [body["event"] for body in webhook.seen] == ["trial"]
