"""`deltawitness notify`: each problem is sent once, with retries, also by two notifiers and after a kill."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import os
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from deltawitness import AlertKind, MessageFormat, Settings, notify
from deltawitness.alerts import webhook
from deltawitness.alerts.question import send_alerts
from deltawitness.alerts.state import StateFile
from deltawitness.alerts.webhook import Webhook
from deltawitness.exceptions import ConfigurationError, DeltaWitnessError
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, LedgerRoot
from helpers.ledger_commands import COMMAND, error_of, invoke, json_of
from helpers.report_ledgers import HOSTILE, START, operation, run_row, write_ledger
from helpers.webhook_server import webhook_server

pytestmark = pytest.mark.slow

DAY = 24 * 60
LATER = START + dt.timedelta(days=3)


@pytest.fixture
def hook():
    """A webhook."""
    with webhook_server() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    """Let retries follow at once."""
    monkeypatch.setattr(webhook, "FIRST_WAIT", 0.0)


def ledger_with(folder, *statuses):
    """Write a ledger with a run of the job `load` for each status, and return its root."""
    return write_ledger(folder / "ledger", [], list(runs_of(*statuses)))


def runs_of(*statuses, first=0):
    for number, status in enumerate(statuses, first):
        error = "OSError" if status == "error" else None
        yield run_row(number, status=status, error_type=error)


def add(root, table, *rows):
    """Add rows to a table of a ledger."""
    opened = LedgerRoot(root).open_or_create(table)
    write_deltalake(
        opened, pa.Table.from_pylist(list(rows), schema=pa.schema(opened.schema())), mode="append"
    )


def send(hook, root, **options):
    return notify(hook.url, root=root, **{"at": LATER, **options})


def test_a_broken_job_is_sent_once_and_then_its_recovery(tmp_path, hook):
    """A job that still fails is sent once; a run that ends with `ok` is a recovery; a new failure is new."""
    root = ledger_with(tmp_path, "ok", "ok", "error")
    (alert,) = send(hook, root).alerts
    assert (alert.kind, alert.name) == (AlertKind.BROKEN, "load")
    assert alert.text == (
        "job load is broken since 2026-03-01 08:02 UTC: 1 of its last 3 runs failed (OSError)"
    )
    add(root, RUNS, *runs_of("error", first=3))
    assert send(hook, root).alerts == ()
    add(root, RUNS, *runs_of("ok", first=4))
    (alert,) = send(hook, root).alerts
    assert alert.text == "job load has recovered: it was broken since 2026-03-01 08:02 UTC"
    assert send(hook, root).alerts == ()
    add(root, RUNS, *runs_of("ok", "ok", "ok", "error", first=5))
    assert send(hook, root).sent == 1
    assert hook.alerts == [[("broken", "load")], [("recovered", "load")], [("broken", "load")]]


@pytest.mark.parametrize("shown_as", MessageFormat)
def test_an_alert_has_the_type_of_an_error_and_no_text(tmp_path, hook, shown_as):
    """Neither the text of the failed operation nor a literal in it is in a request."""
    text = "users' 'Zqann' was not found\ncan't cast \"Zqann\" or O'Zqann"
    failed = operation(2, result="error", error_type="invalid_sql", error_message=text)
    root = write_ledger(tmp_path / "ledger", [failed], list(runs_of("ok", "ok", "error")))
    assert send(hook, root, shown_as=shown_as).sent == 1
    ((_, body),) = hook.requests
    assert b"OSError" in body
    assert b"Zqann" not in body


def test_a_job_that_fails_for_longer_than_the_history_has_not_recovered(tmp_path, hook):
    """After 60 failed runs the earlier ones are not read any more."""
    root = ledger_with(tmp_path, "ok", "error")
    assert send(hook, root).sent == 1
    add(root, RUNS, *runs_of(*["error"] * 70, first=2))
    assert send(hook, root).alerts == ()
    add(root, RUNS, *runs_of("ok", first=80))
    assert [each.kind.value for each in send(hook, root).alerts] == ["recovered"]


def test_an_overdue_table_is_sent_once_and_then_its_recovery(tmp_path, hook):
    """The next write is a recovery; after it the table can be overdue again."""
    root = write_ledger(tmp_path / "ledger", [operation(day * DAY) for day in range(7)], [])
    late = START + dt.timedelta(days=9)
    (alert,) = send(hook, root, at=late).alerts
    assert alert.text.startswith("table orders is overdue: last change 2026-03-07 08:00 UTC, due")
    assert send(hook, root, at=late).alerts == ()
    add(root, INVENTORY, operation(9 * DAY + 5))
    recovered = START + dt.timedelta(days=9, minutes=10)
    assert [each.kind.value for each in send(hook, root, at=recovered).alerts] == ["recovered"]
    assert send(hook, root, at=START + dt.timedelta(days=16)).sent == 1


def test_requests_are_signed(tmp_path, hook):
    """The signature is that of the time and the body; the key is in the header and in the body."""
    send(hook, ledger_with(tmp_path, "ok", "error"), secret="k3y")
    ((headers, body),) = hook.requests
    time, given = headers["Deltawitness-Signature"].split(",")
    signed = time.removeprefix("t=").encode() + b"." + body
    assert given == "v1=" + hmac.new(b"k3y", signed, hashlib.sha256).hexdigest()
    content = json.loads(body)
    assert headers["Idempotency-Key"] == content["id"]
    assert (content["kind"], content["format"]) == ("deltawitness.notify", 1)
    assert set(content["alerts"][0]) == {
        *("id", "kind", "problem", "subject", "name", "since", "run_id", "text"),
    }


def test_failures_that_may_pass_are_retried(tmp_path, hook, monkeypatch):
    """A server error, a limit, a closed connection and a receiver that is too slow are retried with the same key."""
    monkeypatch.setattr(webhook, "TIMEOUT", 0.5)
    release = threading.Event()
    hook.answers += [503, lambda: None, lambda: release.wait(60), (429, {"Retry-After": "7"})]
    waits = []
    root = ledger_with(tmp_path, "ok", "error")
    found = send_with(Webhook(hook.url, wait=waits.append), hook.url, root)
    release.set()
    assert (found.sent, found.attempts, found.error) == (1, 5, None)
    assert len({headers["Idempotency-Key"] for headers, _ in hook.requests}) == 1
    assert waits == [0, 0, 0, 7]


def send_with(destination, url, root):
    place = LedgerRoot(root)
    return send_alerts(
        LedgerListing(place),
        destination,
        StateFile(Settings(cache_root=root), place, url, None),
        MessageFormat.JSON,
        kinds=tuple(AlertKind),
        at=LATER,
        tolerance=3.5,
        dry_run=False,
    )


def test_waits_grow_and_are_bounded(monkeypatch):
    """Waits double, and a receiver cannot ask for more than 30 seconds."""
    monkeypatch.setattr(webhook, "FIRST_WAIT", 1.0)
    waits = []
    with webhook_server() as hook:
        hook.answers += [500, 500, 500, (503, {"Retry-After": "86400"})]
        assert Webhook(hook.url, wait=waits.append).post("{}", "key") == 5
    assert waits[3] == 30.0
    for wait, expected in zip(waits, (1, 2, 4), strict=False):
        assert expected * 0.75 <= wait <= expected * 1.25


def test_what_was_not_delivered_is_sent_again_as_it_was(tmp_path, hook):
    """After five failed attempts the next call sends the same request, then what is new."""
    root = ledger_with(tmp_path, "ok", "error")
    hook.answers += [500] * 5
    found = send(hook, root)
    assert (found.sent, found.attempts) == (0, 5)
    assert found.error.endswith("the receiver answered 500 after 5 attempts")
    add(root, RUNS, *runs_of("ok", first=2))
    assert send(hook, root).sent == 2
    first, *_, again, new = hook.requests
    assert (again[1], again[0]["Idempotency-Key"]) == (first[1], first[0]["Idempotency-Key"])
    assert new[0]["Idempotency-Key"] != first[0]["Idempotency-Key"]
    assert hook.alerts[-2:] == [[("broken", "load")], [("recovered", "load")]]


def test_a_request_that_is_refused_is_not_retried(tmp_path, hook):
    root = ledger_with(tmp_path, "ok", "error")
    hook.answers.append(400)
    found = send(hook, root)
    assert (found.attempts, found.error.split(": ")[-1]) == (1, "the receiver answered 400")
    assert send(hook, root).sent == 1
    first, second = hook.requests
    assert first[0]["Idempotency-Key"] != second[0]["Idempotency-Key"]


def test_redirects_are_not_followed(tmp_path, hook):
    """Another host gets neither the alerts nor the signature."""
    with webhook_server() as other:
        for status in (301, 307):
            hook.answers.append((status, {"Location": other.url}))
            found = send(hook, ledger_with(tmp_path / str(status), "ok", "error"), secret="k")
            assert found.error.endswith(f"answered {status}: redirects are not followed")
        assert other.requests == []


def test_a_receiver_on_this_machine_needs_no_proxy(tmp_path, hook, monkeypatch):
    """The proxy of the environment is for other hosts."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert send(hook, ledger_with(tmp_path, "ok", "ok", "ok", "error")).is_ok
    assert len(hook.requests) == 1


def test_two_notifiers_at_once_send_one_request(tmp_path, hook):
    """The second one waits for the first, and finds that nothing is left to send."""
    root = ledger_with(tmp_path, "ok", "error")
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda _: send(hook, root), range(2)))
    assert sorted(each.sent for each in found) == [0, 1]
    assert len(hook.requests) == 1


def test_a_notifier_that_is_killed_sends_the_same_request_again(tmp_path, hook):
    """A kill after the receiver has the request, and before that is recorded, repeats it with the same key."""
    root = ledger_with(tmp_path, "ok", "error")
    started = threading.Event()
    processes = []

    def kill():
        assert started.wait(60)
        os.kill(processes[0].pid, signal.SIGKILL)

    hook.answers.append(kill)
    command = [*COMMAND, "notify", "--url", hook.url, "--root", root, "--at", LATER.isoformat()]
    with subprocess.Popen(command) as process:
        processes.append(process)
        started.set()
        assert process.wait(300) == -signal.SIGKILL
    found = send(hook, root)
    assert (found.sent, found.alerts[0].name) == (1, "load")
    (first, again) = hook.requests
    assert (first[1], first[0]["Idempotency-Key"]) == (again[1], again[0]["Idempotency-Key"])
    assert send(hook, root).alerts == ()


def test_a_dry_run_sends_and_records_nothing(tmp_path, hook):
    root = ledger_with(tmp_path, "ok", "error")
    before = sorted(Path(root).rglob("*"))
    found = send(hook, root, dry_run=True)
    assert (len(found.alerts), found.sent, found.is_dry_run) == (1, 0, True)
    assert (hook.requests, sorted(Path(root).rglob("*"))) == ([], before)
    assert send(hook, root).sent == 1


def test_formats_of_chats(tmp_path, hook):
    """Names of jobs are neither mentions nor links nor markup, and a long list ends with a count."""
    names = ["<!channel> & [x](http://e)", *(f"job-{number:02}" for number in range(24))]
    rows = [
        run_row(number, run_id=f"{name}-{status}", job=name, status=status)
        for name in names
        for number, status in enumerate(("ok", "error"))
    ]
    root = write_ledger(tmp_path / "ledger", [], rows)
    send(hook, root, shown_as="slack", state=tmp_path / "slack")
    send(hook, root, shown_as="teams", state=tmp_path / "teams")
    slack, teams = (json.loads(body) for _, body in hook.requests)
    lines = slack["text"].splitlines()
    assert lines[0].startswith("🔴 job &lt;!channel&gt; &amp; [x](http://e) is broken since")
    assert (len(lines), lines[-1]) == (21, "and 5 more")
    card = teams["attachments"][0]["content"]
    assert [block["type"] for block in card["body"]] == ["RichTextBlock"] * 21
    assert "<!channel> & [x](http://e)" in card["body"][0]["inlines"][0]["text"]


def test_hostile_names(tmp_path, hook):
    """Control characters are visible, long names are cut, and all is sent in requests of at most 100 alerts."""
    names = [*HOSTILE, *(f"job-{number}" for number in range(95))]
    rows = [
        run_row(number, run_id=f"{place}-{status}", job=name, status=status)
        for place, name in enumerate(names)
        for number, status in enumerate(("ok", "error"))
    ]
    root = write_ledger(tmp_path / "ledger", [], rows)
    assert send(hook, root).sent == len(names)
    assert [len(each) for each in hook.alerts] == [100, 5]
    texts = [each["text"] for each in json.loads(hook.requests[0][1])["alerts"]]
    assert any("\\u202e" in text for text in texts)
    assert not any("\u202e" in text for text in texts)
    assert max(len(name) for each in hook.alerts for _, name in each) < 250
    assert send(hook, root).alerts == ()


def test_the_command(tmp_path, hook, monkeypatch):
    """The URL and the secret come from the environment; the exit code is 0, and 1 if nothing was delivered."""
    root = ledger_with(tmp_path, "ok", "error")
    monkeypatch.setenv("DELTAWITNESS_ROOT", root)
    monkeypatch.setenv("DELTAWITNESS_NOTIFY_URL", hook.url)
    monkeypatch.setenv("DELTAWITNESS_NOTIFY_SECRET", "k3y")
    at = ("--at", LATER.isoformat())
    done = invoke("notify", "--dry-run", *at)
    assert done.stdout.splitlines()[-1].endswith("; nothing was sent (--dry-run)")
    hook.answers.append(403)
    done = invoke("notify", *at)
    assert (done.exit_code, done.stderr.split(": ", 2)[-1]) == (
        1,
        "the receiver answered 403; 0 of 1 alert sent\n",
    )
    found = json_of("notify", *at)
    assert (found["kind"], found["sent"], found["is_ok"]) == ("notify", 1, True)
    assert found["alerts"][0]["kind"] == "broken"
    assert "Deltawitness-Signature" in hook.requests[-1][0]
    assert invoke("notify", *at).stdout.startswith("0 alerts sent to http://127.0.0.1:")
    assert invoke("notify", "--on", "overdue", *at).exit_code == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "there is no webhook: pass --url, or set DELTAWITNESS_NOTIFY_URL"),
        (["--url", "http://host.example/s3cret"], "is http: use https"),
        (["--url", "https://host:port/s3cret"], "is not valid"),
        (["--url", "https://host/s3cret\u00e9 x"], "is not valid"),
        (["--url", "file:///s3cret"], "is not valid"),
        (["--url", "https://user:s3cret@host/"], "has a user name or a password"),
        (["--url", "https://host/s3cret", "--secret-file", "nowhere"], "--secret-file cannot be"),
    ],
)
def test_errors_have_neither_url_nor_secret(tmp_path, monkeypatch, options, text):
    monkeypatch.setenv("DELTAWITNESS_ROOT", ledger_with(tmp_path, "ok"))
    error = error_of("notify", *options, code=2)
    assert text in error
    assert "s3cret" not in error


def test_a_receiver_that_is_gone(tmp_path, caplog):
    """The error names scheme and host, and no log line has the path of the URL."""
    with webhook_server() as hook:
        url = hook.url
    found = notify(url, root=ledger_with(tmp_path, "ok", "error"), at=LATER)
    assert found.error == f"{found.destination}: Connection refused after 5 attempts"
    assert "s3cret" not in f"{found}{caplog.text}"


def test_other_errors(tmp_path, hook, monkeypatch):
    """A damaged record, a record that cannot be written, a missing ledger and an empty one."""
    root = ledger_with(tmp_path, "ok", "error")
    assert send(hook, root).sent == 1
    (file,) = Path(root, "notify").glob("*.json")
    file.write_text("{")
    with pytest.raises(
        DeltaWitnessError, match=r"notify/.*json in the cache root cannot be parsed"
    ):
        send(hook, root)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"directory|exists"):
        send(hook, root, state=tmp_path / "file")
    assert error_of("notify", "--url", hook.url, "--root", tmp_path / "none", code=2)
    assert send(hook, write_ledger(tmp_path / "empty", [], [])).alerts == ()
    with pytest.raises(ConfigurationError):
        notify("http://192.0.2.1/", root=root)
    with pytest.raises(ValueError, match="pigeon"):
        send(hook, root, kinds=["pigeon"])
