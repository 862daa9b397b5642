"""The ledger: read, written, merged, damaged, and changed by several at once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.advice import ledger
from perfkit.advice.entry import (
    MEASURED_KEPT,
    STATUSES,
    VERDICTS,
    Before,
    Entry,
    Measured,
    Stratum,
)
from perfkit.errors import UsageError

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)
amounts = st.integers(-(2**62), 2**62)
moments = st.integers(0, 4_000_000_000).map(lambda second: second * 10**9)
strata = st.builds(
    Stratum,
    endpoint=texts.map(str.strip) | st.just(""),
    tool=texts.map(str.strip) | st.just(""),
    requests=st.integers(0, 10**12),
    mean_ns=amounts,
    error_ns=st.none() | amounts,
    blocks=st.integers(0, 20),
)
measured = st.builds(
    Measured,
    capture=texts.map(str.strip),
    at_ns=moments,
    verdict=st.sampled_from(VERDICTS),
    saved_ns=st.none() | amounts,
    saved_low_ns=st.none() | amounts,
    saved_high_ns=st.none() | amounts,
    requests=st.integers(0, 10**9),
    why=texts.map(str.strip) | st.just(""),
)
entries = st.builds(
    Entry,
    fingerprint=st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}"),
    rule=texts.map(str.strip),
    title=texts.map(str.strip),
    status=st.sampled_from(STATUSES),
    by=texts.map(str.strip),
    at_ns=moments,
    reason=texts.map(str.strip) | st.just(""),
    until=st.dates().map(str) | st.just(""),
    predicted_ns=st.none() | st.tuples(amounts, amounts),
    endpoints=st.lists(texts.map(str.strip), max_size=3).map(tuple),
    tools=st.lists(texts.map(str.strip), max_size=3).map(tuple),
    before=st.none()
    | st.builds(Before, texts.map(str.strip), moments, st.lists(strata, max_size=3).map(tuple)),
    measured=st.lists(measured, max_size=2).map(tuple),
)

ENTRY = Entry("00000000000000aa", "db.slow-query", "Make it faster", "accepted", "ann", 10**18)


@given(st.lists(entries, max_size=4))
def test_what_is_written_is_read(tmp_path: Path, given_entries: list[Entry]) -> None:
    path = tmp_path / ledger.FILE_NAME
    by_name = {one.fingerprint: one for one in given_entries}
    path.write_text(ledger.text(by_name), encoding="utf-8")
    assert ledger.load(path) == by_name


@given(st.lists(entries, max_size=4))
def test_the_order_in_which_things_were_decided_does_not_show(given_entries: list[Entry]) -> None:
    by_name = {one.fingerprint: one for one in given_entries}
    backwards = dict(reversed(by_name.items()))
    assert ledger.text(by_name) == ledger.text(backwards)


def test_an_entry_is_read_as_it_looks(tmp_path: Path) -> None:
    path = tmp_path / ledger.FILE_NAME
    ledger.update(path, lambda known: known.update({ENTRY.fingerprint: ENTRY}))
    assert path.read_text().splitlines()[2:] == [
        "version: 1",
        "advice:",
        "  '00000000000000aa':",
        "    rule: db.slow-query",
        "    title: Make it faster",
        "    status: accepted",
        "    by: ann",
        "    at: '2001-09-09T01:46:40Z'",
    ]


def test_what_turns_text_around_is_seen_in_a_review(tmp_path: Path) -> None:
    turned = replace(ENTRY, title="Cache \u202egnihton\u202c and\u200b nothing")
    path = tmp_path / "ledger.yaml"
    path.write_text(ledger.text({turned.fingerprint: turned}), encoding="utf-8")
    assert "\\u202egnihton\\u202c and\\u200b" in path.read_text(encoding="utf-8")
    assert ledger.load(path)[turned.fingerprint].title == turned.title


def test_no_file_is_an_empty_ledger(tmp_path: Path) -> None:
    assert ledger.load(tmp_path / ledger.FILE_NAME) == {}


def test_it_is_found_above(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert ledger.find(below) == below / ledger.FILE_NAME
    (tmp_path / ledger.FILE_NAME).write_text("version: 1\n")
    assert ledger.find(below) == tmp_path / ledger.FILE_NAME


def test_two_branches_that_decide_about_different_things_merge(tmp_path: Path) -> None:
    """The file is made for `git merge`: an entry's lines are its own."""

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    path = tmp_path / ledger.FILE_NAME
    names = [f"{number:016x}" for number in range(4)]
    ledger.update(
        path, lambda known: known.update({n: replace(ENTRY, fingerprint=n) for n in names})
    )
    git("init", "--quiet", "--initial-branch", "one")
    git("add", ".")
    git("commit", "--quiet", "--message", "both")
    git("checkout", "--quiet", "-b", "two")
    ledger.update(path, lambda known: known.update({names[0]: replace(known[names[0]], by="bob")}))
    git("commit", "--quiet", "--all", "--message", "first")
    git("checkout", "--quiet", "one")
    ledger.update(path, lambda known: known.update({names[3]: replace(known[names[3]], by="eve")}))
    git("commit", "--quiet", "--all", "--message", "last")
    git("merge", "--quiet", "two")
    assert [ledger.load(path)[name].by for name in names] == ["bob", "ann", "ann", "eve"]


_MARKS = "<<<<<<< mine\n{}=======\n{}>>>>>>> theirs\n"


def conflict(mine: Entry, theirs: Entry) -> str:
    """As git leaves it: lines that are equal on both sides are outside of the marks."""
    one, other = (ledger.text({e.fingerprint: e}).splitlines(True) for e in (mine, theirs))
    return "".join(a if a == b else _MARKS.format(a, b) for a, b in zip(one, other, strict=True))


def test_entries_that_both_sides_of_a_merge_added_are_both_kept(tmp_path: Path) -> None:
    path = tmp_path / ledger.FILE_NAME
    other = replace(ENTRY, fingerprint="f" * 16, by="bob")
    path.write_text(conflict(ENTRY, other))
    both = {ENTRY.fingerprint: ENTRY, other.fingerprint: other}
    assert ledger.load(path) == both
    ledger.update(path, lambda known: None)
    assert path.read_text() == ledger.text(both)


def test_two_decisions_about_one_thing_are_for_people_to_settle(tmp_path: Path) -> None:
    path = tmp_path / ledger.FILE_NAME
    path.write_text(conflict(ENTRY, replace(ENTRY, by="bob")))
    with pytest.raises(UsageError, match=rf":5: a merge .* about {ENTRY.fingerprint}, .* by bob"):
        ledger.load(path)


@pytest.mark.slow
def test_changes_of_many_processes_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / ledger.FILE_NAME
    code = (
        "import sys\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from perfkit.advice import ledger\n"
        "from tests.advice.test_ledger import ENTRY\n"
        "for number in range(5):\n"
        "    name = f'{int(sys.argv[1]) * 100 + number:016x}'\n"
        "    entry = replace(ENTRY, fingerprint=name)\n"
        "    ledger.update(Path(sys.argv[2]), lambda known: known.update({name: entry}))\n"
    )
    root = Path(__file__).resolve().parents[2]
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(number), str(path)], cwd=root)
        for number in range(3)
    ]
    assert [one.wait(120) for one in started] == [0, 0, 0]
    assert len(ledger.load(path)) == 15
    assert sorted(one.name for one in tmp_path.iterdir()) == [ledger.FILE_NAME]


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / ledger.FILE_NAME
    ledger.update(path, lambda known: known.update({ENTRY.fingerprint: ENTRY}))
    before = path.read_bytes()

    def fail(known: ledger.Entries) -> None:
        known.clear()
        raise UsageError("no")

    with pytest.raises(UsageError):
        ledger.update(path, fail)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("", "the file is empty"),
        ("advice: {}\n", "lacks the key 'version'"),
        ("version: 2\n", "version 2, known is 1"),
        ("version: 1\nadvice: [1]\n", "must be a map"),
        ("version: 1\nadvice: {abc: {}}\n", "no fingerprint"),
        ("version: 1\nadvice: {'0000000000000001': {rule: x}}\n", "lacks the key 'title'"),
        ("version: 1\nmore: 1\n", "unknown key of a ledger more"),
        ("version: 1\nadvice: &a {b: *a}\n", "anchors are not allowed"),
        ("version: 1\nversion: 1\n", "was given before"),
        ("version: 1\n<<<<<<< mine\nadvice: {}\n", ":2: a merge conflict is not resolved"),
        ("\x00", "not valid YAML"),
    ],
)
def test_damage_is_named_with_its_place(tmp_path: Path, damage: str, message: str) -> None:
    path = tmp_path / ledger.FILE_NAME
    path.write_text(damage)
    with pytest.raises(UsageError) as caught:
        ledger.load(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("status: accepted", "status: maybe", "unknown status maybe"),
        ("'2001-09-09T01:46:40Z'", "yesterday", "must be a time"),
        ("by: ann", "by: ann\n    until: soon", "is not a day"),
        ("by: ann", "by: ann\n    predicted_ns: [1]", "must be two numbers"),
        ("by: ann", "by: ann\n    predicted_ns: [1, x]", "must be a whole number"),
        ("by: ann", "by: ann\n    bye: ann", "unknown key of an entry bye"),
        ("by: ann", "by: ann\n    measured: [{verdict: fine}]", "lacks the key 'capture'"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / ledger.FILE_NAME
    written = ledger.text({ENTRY.fingerprint: ENTRY})
    assert written.count(old) == 1
    path.write_text(written.replace(old, new))
    with pytest.raises(UsageError, match=rf"{ledger.FILE_NAME}:\d+:\d+: .*{message}"):
        ledger.load(path)


def test_only_the_newest_measurements_are_kept() -> None:
    entry = ENTRY
    for number in range(MEASURED_KEPT + 3):
        entry = entry.with_measured(Measured(f"c{number}", number, "gone"))
    again = entry.with_measured(Measured("c7", 99, "back"))
    assert [one.capture for one in entry.measured] == ["c3", "c4", "c5", "c6", "c7"]
    assert [one.verdict for one in again.measured] == ["gone"] * 4 + ["back"]
