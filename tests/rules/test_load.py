"""Rule files: what is wrong is refused, with its place and what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.errors import RuleError, UsageError
from perfkit.rules import document
from perfkit.rules.choose import Choice, choose
from perfkit.rules.load import load_rule
from tests.rules.rule_text import RULE, changed, write


def error(path: Path) -> RuleError:
    with pytest.raises(RuleError) as caught:
        load_rule(path, tests=True)
    return caught.value


def check_fault_has_a_place(path: Path) -> None:
    fault = None
    try:
        load_rule(path, tests=True)
    except RuleError as caught:
        fault = caught.message
    assert fault is None or fault.startswith(f"{path}:")


def test_a_good_rule_is_read(tmp_path: Path) -> None:
    rule = load_rule(write(tmp_path), tests=True)
    assert rule.id == "test.slow"
    assert rule.query.tables == ("metric_stats",)
    assert rule.values == {"limit": 5_000_000}
    assert rule.params["limit"].shown == "5 ms"
    assert [step.severity for step in rule.severity] == ["high", "low"]
    assert rule.tests[0].tables == {"metric_stats": [{"name": "a", "mean": 12_000_000}]}
    assert load_rule(rule.path).tests == ()


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        (
            "SELECT name, mean",
            "SELECT nam, mean",
            "10:10: unknown column nam",
            "did you mean name?",
        ),
        (
            "FROM metric_stats",
            "FROM metric_stat",
            "11:8: unknown table metric_stat",
            "metric_stats",
        ),
        ("mean >= :limit", "mean >= :limt", "unknown parameter :limt", "did you mean :limit?"),
        ("  ORDER BY mean DESC, name\n", "", "9:8: the query lacks ORDER BY", "worst rows first"),
        ("mean * 2", "mena * 2", "15:10: unknown column mena", "did you mean mean?"),
        ("mean * 2", "SUM(mean)", "15:10: the function SUM is not allowed", None),
        ("mean * 2", "read_csv('/etc/passwd')", "the function READ_CSV is not allowed", None),
        ("twice: mean", "name: mean", "15:9: the name 'name' is taken", None),
        (
            "  confidence: CASE WHEN mean > 1 THEN 0.9 END\n",
            "",
            "lacks the column confidence",
            None,
        ),
        ("twice >= 20000000", "twce >= 1", "18:12: unknown column twce", "did you mean twice?"),
        ("is: high", "is: hihg", "18:35: unknown is hihg", "did you mean high?"),
        ("{is: low}", "{when: TRUE, is: low}", "unknown key of a line of severity when", None),
        ("key: [name]", "key: [nme]", "20:7: unknown column nme", "did you mean name?"),
        ("{mean:duration}", "{maen:duration}", "23:21: unknown column maen", "did you mean mean?"),
        ("{mean:duration}", "{mean:durtion}", "23:21: unknown spec durtion", "duration"),
        ("{mean:duration}", "{mean}", "23:21: {mean} is not {column:spec}", None),
        ("{mean:duration}", "{mean.__class__:text}", "is not {column:spec}", None),
        ("{mean:duration}", "{mean!r:text}", "is not {column:spec}", None),
        ("more than {limit", "more } than {limit", "a lone '}'", None),
        ("effort: low", "effort: tiny", "unknown effort tiny", None),
        ("software: Redis", "software: Rediss", "unknown software Rediss", "did you mean Redis?"),
        ("status: stable", "status: done", "4:9: unknown status done", None),
        ("title: A slow thing", "titel: A slow thing", "2:1: unknown key of a rule titel", "title"),
        ("title: A slow thing\n", "", "a rule lacks the key 'title'", None),
        ("title: A slow thing", "title: 5", "2:8: title of a rule must be a text", None),
        ("title: A slow thing", "title: [a]", "2:8: title of a rule must be a text", None),
        ("key: [name]", "key: name", "20:6: key of a rule must be a list", None),
        ("default: 5", "default: five", "must be a number", None),
        ("unit: ms", "unit: msec", "unknown unit msec", "did you mean ms?"),
        (
            "metric_stats: [mean]",
            "metric_stats: [mena]",
            "unknown column of metric_stats mena",
            "mean",
        ),
        ("metric_stats: [mean]", "metrics_stat: [mean]", "unknown table metrics_stat", None),
        ("id: test.slow", "id: test.fast", "must look like db.slow-query and be the file", None),
        ('"https://example.org/"', '"http://example.org/"', "must be an https link", None),
        ('"https://example.org/"', '"javascript:alert(1)"', "must be an https link", None),
        ('"https://example.org/"', "'https://x.org/\"><b>'", "must be an https link", None),
        ("mean * 2", "mean * 1.5e999", "is none that can be computed with", None),
        (
            "[{name: a, mean: 12000000}]",
            "[{repeat: 2, step: {mean: 1}, rows: [{name: a, mean: much}]}]",
            "a step of mean, which is no number in all rows",
            None,
        ),
        ('risk: "{twice:duration}"', "what_if: {rows: SELECT 1}", "rows must be given with", None),
        ("[{name: a, mean: 12000000}]", "[{nam: a}]", "unknown column of metric_stats nam", "name"),
        ("[{name: a, mean: 12000000}]", "[{first_ns: soon}]", "'soon' is not a duration", None),
        (
            "severity: high, says",
            "severity: high, say",
            "unknown key of an expected finding",
            "says",
        ),
        ("expect: [", "expect: silent # [", "unknown expect silent", None),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    tmp_path: Path, old: str, new: str, message: str, hint: str | None
) -> None:
    text = changed(old, new)
    caught = error(write(tmp_path, text))
    assert message in caught.message
    assert caught.message.startswith(f"{tmp_path / 'test.slow.yaml'}:")
    if hint is not None:
        assert caught.hint is not None
        assert hint in caught.hint


def test_one_of_what_if_risk_and_saving(tmp_path: Path) -> None:
    text = changed("  twice: mean * 2\n", "  twice: mean * 2\n  saved_low_ratio: 0.1\n")
    assert (
        "derive both saved_low_ratio and saved_high_ratio" in error(write(tmp_path, text)).message
    )
    text = text.replace(
        "  saved_low_ratio: 0.1\n", "  saved_low_ratio: 0.1\n  saved_high_ratio: 0.2\n"
    )
    assert "a rule with a risk has no what_if" in error(write(tmp_path, text)).message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("- a\n", "1:1: a rule must be a map"),
        ("a: 1\na: 2\n", "2:1: the key 'a' was given before, on line 1"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "4:3: the key 'b' was given before, on line 2"),
        ("a: &x [1]\nb: *x\n", "1:4: anchors are not allowed"),
        ("b: *x\n", "aliases are not allowed"),
        ("a: {<<: *x}\n", "aliases are not allowed"),
        ("a: !!python/object/apply:os.system ['id']\n", "the tag"),
        ("a: !!binary aGk=\n", "the tag"),
        ("a: !x 1\n", "the tag !x is not allowed"),
        ("1: a\n", "1:1: the key 1 is not text"),
        ("? [a]\n: b\n", "is not text"),
        ("a: [1, 2\n", "not valid YAML"),
        ("a: b: c\n", "1:5: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "a second document"),
        ("a: " + "[" * 40 + "]" * 40, "nested deeper than"),
        ("a: 99999999999999999999\n", "does not fit into 64 bits"),
        ("a: \x01\n", "not valid YAML"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in error(write(tmp_path, text)).message


def test_an_alias_bomb_is_refused_at_its_first_anchor(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join(['*' + before] * 9)}]")
    assert "1:4: anchors are not allowed" in error(write(tmp_path, "\n".join(lines))).message


def test_a_file_that_is_no_rule(tmp_path: Path) -> None:
    big = write(tmp_path, "a: " + "x" * document.MAX_BYTES, "big")
    assert "larger than 256 KiB" in error(big).message
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"a: 1\nb: \xff\xfe\n")
    assert "binary.yaml:2:1: not UTF-8" in error(binary).message
    assert "No such file" in error(tmp_path / "missing.yaml").message


def test_words_of_yaml_1_1_are_text(tmp_path: Path) -> None:
    path = write(tmp_path, "a: no\nb: on\nc: 1e3\nd: 0o17\ne: true\nf: 12:30\ng: ~\nh: -.5\n")
    tree = document.read(path)
    assert isinstance(tree.value, dict)
    values = [node.value for node in tree.value.values()]
    assert values == ["no", "on", 1000.0, "0o17", True, "12:30", None, -0.5]


@given(
    st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "ignore"))
)
def test_any_bytes_are_a_tree_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(raw)
    check_fault_has_a_place(path)


@given(st.data())
def test_a_rule_with_a_damaged_line_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = RULE.splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    junk = data.draw(st.text(alphabet="{}[]:'\"*&!|>-# abc\n", max_size=12))
    at = data.draw(st.integers(0, len(lines[number])))
    lines[number] = lines[number][:at] + junk + lines[number][at:]
    folder = tmp_path_factory.getbasetemp() / "damaged"
    path = write(folder, "\n".join(lines))
    check_fault_has_a_place(path)


def test_a_default_beyond_all_bounds(tmp_path: Path) -> None:
    path = write(tmp_path, changed("{default: 5, unit: ms,", "{default: 1e300, unit: h,"))
    with pytest.raises(RuleError, match=r"8:\d+: 1e\+300 h is too large"):
        load_rule(path)


def test_the_tests_are_skipped_wherever_they_stand_and_lines_stay_right(tmp_path: Path) -> None:
    body, tests = RULE.split("tests:\n")
    path = write(tmp_path, f"tests:\n{tests}# a remark\n{body}")
    assert load_rule(path).tests == ()
    assert len(load_rule(path, tests=True).tests) == 1
    faulty = body.replace("headline:", "headlin:")
    path = write(tmp_path, f"tests:\n{tests}# a remark\n{faulty}")
    line = path.read_text().split("\n").index('headlin: "Look at {name:text}"') + 1
    with pytest.raises(RuleError, match=f":{line}:1: unknown key"):
        load_rule(path)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        (
            "  limit: {default: 5, unit: ms, source: house}",
            '  limit: {default: 5, unit: ms, source: house}\n  kind: {default: "a(?=b)", '
            "unit: text, source: house}",
            "9:20",
        ),
        ("WHERE mean >= :limit", "WHERE mean >= :limit AND REGEXP_LIKE(name, '(a')", "12:47"),
        ("when: mean > 0", "when: \"REGEXP_LIKE(name, 'a\\\\1')\"", "32:76"),
    ],
)
def test_a_pattern_that_cannot_run_is_found_by_lint(
    tmp_path: Path, old: str, new: str, place: str
) -> None:
    text = changed(old, new)
    if "kind:" in new:
        text = text.replace("mean >= :limit", "mean >= :limit AND REGEXP_LIKE(name, :kind)")
    path = write(tmp_path, text)
    assert load_rule(path).id == "test.slow"
    with pytest.raises(RuleError, match="no regular expression of Polars") as raised:
        load_rule(path, tests=True)
    assert raised.value.message.startswith(f"{path}:{place}: ")


def test_a_pattern_is_tuned_to_one_that_runs() -> None:
    with pytest.raises(UsageError, match=r"db.slow-query.cut: .*look-around"):
        choose(Choice(tune=("db.slow-query.cut=(?!a)b",)))
    assert choose(Choice(tune=("db.slow-query.cut=a+$",)))
