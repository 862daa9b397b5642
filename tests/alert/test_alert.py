"""Alerts: what is worth one, said once to each, and nothing lost."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from email import message_from_string
from email.header import decode_header, make_header
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest
from click.testing import CliRunner, Result

from perfkit.alert import http
from perfkit.alert.deliver import deliver
from perfkit.alert.event import Alert, Event
from perfkit.alert.signals import active
from perfkit.alert.targets import Alertmanager, Webhook, parse
from perfkit.cli.alert import SEVERITIES, command
from perfkit.cli.alerter import Alerter
from perfkit.cli.record import command as record
from perfkit.errors import InputError, PerfkitError, UsageError
from perfkit.rules.evaluate import run as run_rules
from perfkit.rules.load import load_rules
from tests.analysis.build import S, analyse
from tests.report.build import open_tables, write_capture

SECRET = "hunter2secret"
NOW = 1_790_000_000 * 10**9


def alert(name: str, **more: Any) -> Alert:
    made = {
        "fingerprint": name,
        "name": "PerfkitFinding",
        "severity": "high",
        "summary": f"{name} is slow",
        "description": 'say "no"\u2028',
        "starts_ns": NOW,
        "labels": {"endpoint": "/a"},
    }
    return Alert(**{**made, **more})


class Server:
    """Takes posts, and answers with the next of `answers`, the last of them for ever."""

    def __init__(self) -> None:
        self.answers = [200]
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.path, dict(self.headers), json.loads(body)))
                status = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()
                self.wfile.write(b"because")

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def said(self) -> list[tuple[str, str]]:
        return [
            (one["fingerprint"], one["status"])
            for _, _, body in self.requests
            for one in body["alerts"]
        ]


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def tell(server: Server, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that says that these alerts are all that is wrong."""
    target = parse(f"http://{server.host}/hook", None, {})
    assert isinstance(target, Webhook)
    target.sleep = lambda _: None

    def tell_(*names: str, source: str = "shop") -> Any:
        (one,) = deliver([alert(name) for name in names], [target], source, tmp_path / "state.json")
        return one

    return tell_


def test_each_is_said_once_and_when_it_is_over(tell: Callable[..., Any], server: Server) -> None:
    assert (tell("a", "b").new, server.said) == (2, [("a", "firing"), ("b", "firing")])
    assert (tell("a", "b").going_on, len(server.said)) == (2, 2)
    assert tell("b", "c").over == 1
    assert server.said[2:] == [("c", "firing"), ("a", "resolved")]
    tell("a", "b", "c")
    assert server.said[4:] == [("a", "firing")]


def test_another_program_is_not_well_because_this_one_is(
    tell: Callable[..., Any], server: Server
) -> None:
    tell("a", source="shop")
    assert tell("b", source="bank").over == 0
    assert tell("a", source="shop").new == 0
    assert server.said == [("a", "firing"), ("b", "firing")]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_recovers_is_asked_again(
    tell: Callable[..., Any], server: Server, status: int
) -> None:
    server.answers = [status, status, 200]
    assert tell("a").problem is None
    assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "tries"), [(500, 4), (400, 1), (302, 1)])
def test_nothing_is_lost_by_a_server_that_fails(
    tell: Callable[..., Any], server: Server, status: int, tries: int
) -> None:
    server.answers = [status]
    done = tell("a")
    assert done.problem == f"http://{server.host}/hook answered {status}: because"
    assert (done.waiting, len(server.requests)) == (1, tries)
    # What began and was over while nobody listened is told too, in order.
    assert tell().waiting == 2
    server.answers, server.requests = [200], []
    assert (tell("b").problem, server.said) == (
        None,
        [("a", "firing"), ("a", "resolved"), ("b", "firing")],
    )


def test_a_server_that_is_down_or_slow(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr(http, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(http, "PAUSES_S", (0.0,))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slow = parse(f"http://127.0.0.1:{silent.getsockname()[1]}/", None, {})
        down = parse("http://127.0.0.1:1/", None, {})
        well = parse(f"http://{server.host}/", None, {})
        one, two, three = deliver([alert("a")], [slow, down, well], "s", tmp_path / "state.json")
    assert "did not answer in 0.2 s" in str(one.problem)
    assert "cannot be reached" in str(two.problem)
    assert (three.problem, server.said) == (None, [("a", "firing")])


def test_a_queue_that_grows_too_long_drops_the_oldest_and_says_so(
    tell: Callable[..., Any], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perfkit.alert.state._MOST_WAITING", 3)
    server.answers = [400]
    assert tell("a", "b", "c", "d").dropped == 1
    server.answers, server.requests = [200], []
    assert tell("a", "b", "c", "d").waiting == 0
    assert server.said == [("b", "firing"), ("c", "firing"), ("d", "firing")]


@pytest.mark.parametrize("content", ["{", '{"a": 1}', '{"a": {"firing": {"x": {}}}}', "[]"])
def test_a_damaged_state_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(InputError, match="not a state of alerts"):
        deliver([alert("a")], [parse("http://127.0.0.1:1/", None, {})], "s", path)
    assert path.read_text() == content


def test_two_jobs_at_once_say_everything_once(server: Server, tmp_path: Path) -> None:
    targets = [parse(f"http://{server.host}/", None, {})]
    jobs = [
        threading.Thread(
            target=deliver, args=([alert("a"), alert("b")], targets, "s", tmp_path / "state.json")
        )
        for _ in range(5)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert sorted(server.said) == [("a", "firing"), ("b", "firing")]


def test_a_template_and_a_token(server: Server, tmp_path: Path) -> None:
    template = '{"text": "$severity: $summary ($description)", "labels": "$labels", "cost": "$$5"}'
    env = {"PERFKIT_WEBHOOK_TOKEN": SECRET}
    target = parse(f"http://{server.host}/hook", template, env)
    deliver([alert("a")], [target], "s", tmp_path / "state.json")
    (path, headers, body) = server.requests[0]
    assert path == "/hook"
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert body == {
        "text": 'high: a is slow (say "no"\u2028)',
        "labels": '{"endpoint": "/a"}',
        "cost": "$5",
    }
    assert SECRET not in (tmp_path / "state.json").read_text()
    with pytest.raises(UsageError, match="not known: nope"):
        parse("http://h/", "$nope", {})
    with pytest.raises(UsageError, match=r"not known: \$"):
        parse("http://h/", "$ 5", {})


@pytest.mark.parametrize(
    "text",
    [
        f"http://me:{SECRET}@host/",
        f"https://host/?token={SECRET}",
        f"slack://{SECRET}/b/c",
        f"alertmanager://me:{SECRET}@host:9093",
    ],
)
def test_a_secret_is_refused_on_the_command_line_and_never_shown(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(text, None, {})
    assert SECRET not in f"{error.value.message} {error.value.hint}"
    if not text.startswith("slack"):
        target = parse("env:WHERE", None, {"WHERE": text})
        assert target.name == "$WHERE"
        with pytest.raises(PerfkitError) as undelivered:
            _sendable(target).send([Event(alert("a"))], NOW)
        assert SECRET not in undelivered.value.message


def _sendable(target: Any) -> Any:
    target.url = target.url.replace("host", "127.0.0.1:1", 1)
    target.sleep = lambda _: None
    return target


@pytest.mark.parametrize("text", ["", "nowhere", "http://", "http://h:x/", "env:NONE"])
def test_what_is_no_target_is_said(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text, None, {})


def test_apprise_sends_what_it_is_given(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("apprise", reason="needs perfkit[notify]")
    target = parse("env:CHAT", None, {"CHAT": f"json://{server.host}/{SECRET}"})
    deliver([alert("a")], [target], "s", tmp_path / "state.json")
    deliver([], [target], "s", tmp_path / "state.json")
    (first, second) = (body for _, _, body in server.requests)
    assert (first["title"], first["type"]) == ("HIGH: a is slow", "warning")
    assert (second["title"], second["type"]) == ("Resolved: a is slow", "success")
    server.answers = [500]
    (done,) = deliver([alert("b")], [target], "s", tmp_path / "state.json")
    assert done.problem == "$CHAT did not take a message"
    with pytest.raises(UsageError, match=r"\$CHAT holds no URL"):
        parse("env:CHAT", None, {"CHAT": "what://x"}).send([Event(alert("a"))], NOW)


class Mailbox:
    """An SMTP server (RFC 5321) that takes mail, or refuses the sender; AUTH PLAIN and LOGIN."""

    def __init__(self, *, refuses: bool) -> None:
        self.mails: list[str] = []
        self.logins: list[str] = []
        outer = self

        class Handler(StreamRequestHandler):
            def handle(self) -> None:
                self.say("220 test")
                while line := self.rfile.readline().decode().strip():
                    verb = line.split()[0].upper()
                    if verb == "EHLO":
                        self.say("250-test")
                        self.say("250 AUTH PLAIN")
                    elif verb == "AUTH":
                        outer.logins.append(base64.b64decode(line.split()[2]).decode())
                        self.say(f"535 not {line.split()[2]}" if refuses else "235 well")
                    elif verb == "DATA":
                        self.say("354 go on")
                        lines = iter(lambda: self.rfile.readline().decode(), ".\r\n")
                        outer.mails.append("".join(lines))
                        self.say("250 taken")
                    elif verb == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("250 well")

            def say(self, line: str) -> None:
                self.wfile.write(f"{line}\r\n".encode())

        self._server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.real
@pytest.mark.parametrize("refuses", [False, True])
def test_mail_is_delivered_and_a_failure_shows_no_secret(tmp_path: Path, refuses: bool) -> None:
    pytest.importorskip("apprise", reason="needs perfkit[notify]")
    box = Mailbox(refuses=refuses)
    url = (
        f"mailto://me:{SECRET}@{box.host}?smtp=127.0.0.1&mode=insecure"
        "&from=perfkit@example.org&to=oncall@example.org"
    )
    capture = str(write_capture(tmp_path / "a.perfkit"))
    words = ["alert", capture, "--severity", "low", "--state", str(tmp_path / "state.json")]
    done = subprocess.run(
        [sys.executable, "-m", "perfkit.cli", *words, "--to", "env:MAIL"],
        env={**os.environ, "MAIL": url},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    box.close()
    # It was there to be shown: the server was given it.
    assert any(SECRET in login for login in box.logins), done.stderr
    everything = done.stdout + done.stderr + (tmp_path / "state.json").read_text()
    secrets = (SECRET, base64.b64encode(f"\0me\0{SECRET}".encode()).decode())
    assert not any(secret in everything for secret in secrets)
    if refuses:
        assert (done.returncode, box.mails) == (1, [])
        assert "$MAIL did not take a message" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    mails = [message_from_string(mail) for mail in box.mails]
    assert mails
    for mail in mails:
        assert "oncall@example.org" in mail["To"]
        subject = str(make_header(decode_header(mail["Subject"])))
        assert subject.split(":")[0] in ("HIGH", "MEDIUM", "LOW")


def test_an_alertmanager_gets_what_its_api_wants(server: Server, tmp_path: Path) -> None:
    target = parse(f"alertmanager://{server.host}/prefix/", None, {})
    assert isinstance(target, Alertmanager)
    one = alert("a", labels={"5xx rate": "1", "endpoint": "", "alertname": "mine"})
    deliver([one], [target], "s", tmp_path / "state.json")
    deliver([one], [target], "s", tmp_path / "state.json")
    deliver([], [target], "s", tmp_path / "state.json")
    assert {path for path, _, _ in server.requests} == {"/prefix/api/v2/alerts"}
    told = [body for _, _, body in server.requests]
    assert told[0][0]["labels"] == {
        "_5xx_rate": "1",
        "alertname": "PerfkitFinding",
        "severity": "high",
        "fingerprint": "a",
        "source": "perfkit",
    }
    # What goes on is told again, because an Alertmanager forgets.
    assert told[1][0]["labels"] == told[0][0]["labels"]
    assert told[2][0]["endsAt"] < told[1][0]["endsAt"]
    assert all(body[0]["startsAt"] <= body[0]["endsAt"] for body in told)


def requests(slow_from: int, slow_until: int) -> list[S]:
    """Ten requests a second for two minutes, twenty times as long for a while."""
    spans = []
    for number in range(1200):
        start = NOW + number * 10**8
        length = 10**7 * (20 if slow_from <= number < slow_until else 1) + number % 7 * 10**5
        spans.append(
            S(number + 1, start, start + length, trace=number + 1, kind="server",
              endpoint="GET /a", service="shop")
        )  # fmt: skip
    return spans


def test_a_spike_is_an_alert_and_while_recording_only_as_long_as_it_lasts() -> None:
    over, lasting = analyse(requests(500, 800)), analyse(requests(900, 1200))
    for tables in (over, lasting):
        (one,) = active(tables, [], "high")
        assert one.name == "PerfkitSlowRequests"
        assert one.labels == {"service": "shop", "endpoint": "GET /a"}
        assert "instead of" in one.description
    fingerprints = {active(tables, [], "high")[0].fingerprint for tables in (over, lasting)}
    assert len(fingerprints) == 1
    over.capture.living = lasting.capture.living = True
    assert active(over, [], "high") == []
    assert len(active(lasting, [], "high")) == 1
    assert active(analyse(requests(0, 0)), [], "high") == []


def run(*arguments: str) -> Result:
    # All rules would only take time.
    few = (*arguments, "--group", "database")
    return CliRunner().invoke(command, few, catch_exceptions=False)


def test_the_command_lists_tells_and_fails(server: Server, tmp_path: Path) -> None:
    capture = str(write_capture(tmp_path / "a.perfkit"))
    listed = run(capture, "--severity", "low")
    assert "MEDIUM" in listed.stdout or "HIGH" in listed.stdout or "LOW" in listed.stdout
    state = ("--state", str(tmp_path / "s" / "state.json"), "--severity", "low")
    to = ("--to", f"http://{server.host}/")
    first = json.loads(run(capture, "--json", *to, *state).stdout)
    assert first["deliveries"][0]["new"] == len(first["alerts"]) == len(server.said) > 0
    again = run(capture, *to, *state)
    assert f"0 new, 0 over, {len(server.said)} going on" in again.stderr
    assert len(server.requests) == 1
    server.answers = [403]
    other = ("--to", f"http://{server.host}/other")
    with pytest.raises(PerfkitError, match="answered 403: because") as error:
        run(capture, *other, *state)
    assert error.value.exit_code == 1
    assert "nothing is lost" in str(error.value.hint)


def test_a_breached_budget_is_an_alert(server: Server, tmp_path: Path) -> None:
    capture = str(write_capture(tmp_path / "a.perfkit"))
    state = ("--state", str(tmp_path / "state.json"), "--to", f"http://{server.host}/", "--json")
    kept, broken = "p95(endpoint=/tools/invoke) < 10s", "p95(endpoint=/tools/invoke) < 10ms"

    def names(*budgets: str) -> list[str]:
        words = [word for budget in budgets for word in ("--budget", budget)]
        found = json.loads(run(capture, *words, *state).stdout)["alerts"]
        return [one["summary"] for one in found if one["name"] == "PerfkitBudget"]

    assert names(kept) == []
    assert names(kept, broken) == [f"Budget breached: {broken} (POST /tools/invoke)"]
    assert names(kept) == []
    assert ("PerfkitBudget", "resolved") in [
        (one["name"], one["status"]) for _, _, body in server.requests for one in body["alerts"]
    ]
    with pytest.raises(UsageError, match="matches nothing"):
        names("p95(endpoint=/nowhere) < 1s")
    with pytest.raises(UsageError, match="not a budget"):
        names("fast")


def test_severities_are_those_of_the_rules() -> None:
    from perfkit.alert.signals import SEVERITIES as known

    assert known == SEVERITIES


def test_no_alert_holds_what_looks_like_a_token(tmp_path: Path) -> None:
    token = "ghp_" + "a1" * 18
    tables = open_tables(write_capture(tmp_path / "x.perfkit", hostile=f"GET /x {token}"))
    found = active(tables, run_rules(load_rules(), tables), "low")
    said = [text for one in found for text in (one.summary, one.description, *one.labels.values())]
    assert any("[masked]" in text for text in said)
    assert not any(token in text for text in said)


def test_an_answer_that_breaks_off_is_no_traceback() -> None:
    """A target that took it took it; one that failed is told as one that failed."""
    for status, taken in ((200, True), (500, False)):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            head = f"HTTP/1.1 {status} x\r\nTransfer-Encoding: chunked\r\n\r\nzz".encode()
            threading.Thread(target=answer, args=(listener, head, 4), daemon=True).start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            if taken:
                http.post(url, b"{}", {}, "it", sleep=lambda _: None)
            else:
                with pytest.raises(http.Undelivered, match="it answered 500"):
                    http.post(url, b"{}", {}, "it", sleep=lambda _: None)


def answer(listener: socket.socket, head: bytes, times: int) -> None:
    for _ in range(times):
        try:
            connection, _address = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(65536)
            connection.sendall(head)


@pytest.mark.slow
def test_a_recording_passes_budgets_and_severity_on(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    capture = write_capture(tmp_path / "a.perfkit")
    told = Alerter.of((f"http://{server.host}/",), ("p95(endpoint=/tools/invoke) < 10ms",), "low")
    told.start(capture)
    told.finish()
    said = [one for _, _, body in server.requests for one in body["alerts"]]
    assert "PerfkitBudget" in {one["name"] for one in said}
    findings = {one["severity"] for one in said if one["name"] == "PerfkitFinding"}
    assert findings - {"high"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--alert-budget", "p95 < 1s"), "need --alert TARGET"),
        (("--alert-severity", "low"), "need --alert TARGET"),
        (("--alert", "http://127.0.0.1:1/", "--alert-budget", "fast"), "not a budget"),
    ],
)
def test_a_recording_refuses_wrong_wishes_before_it_begins(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    output = tmp_path / "x.perfkit"
    with pytest.raises(UsageError, match=said):
        CliRunner().invoke(
            record, [*words, "-o", str(output), "--", "true"], catch_exceptions=False
        )
    assert not output.exists()
