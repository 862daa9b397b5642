from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.masking import MASK, SECRETS, mask
from perfkit.report.text import LIMIT, clean, clean_all, clean_json, visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abcdef123456789", f"Authorization: Bearer {MASK}"),
        ("Basic dXNlcjpwYXNzd29yZA==", f"Basic {MASK}"),
        ('{"password": "hunter2", "user": "x"}', f'{{"password": "{MASK}", "user": "x"}}'),
        ("db_password=hunter2&x=1", f"db_password={MASK}&x=1"),
        ("postgresql://me:pw@db/app", f"postgresql://me:{MASK}@db/app"),
        ("id AKIAABCDEFGHIJKLMNOP.", f"id {MASK}."),
        ("?token=deadbeef0123456789&a=b", f"?token={MASK}&a=b"),
        ("x-api-key: 0123456789abcdef", f"x-api-key: {MASK}"),
        ("secret_key='AbCdEfGhIjKlMnOpQrStUvWxYz012345=='", f"secret_key='{MASK}'"),
        ("run --token s3cret now", f"run --token {MASK} now"),
        ("--db-password=hunter2", f"--db-password={MASK}"),
        ("ghp_" + "a1" * 18, MASK),
        ("xoxb-1234567890-abcdef", MASK),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", MASK),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", MASK),
        ("-----BEGIN PRIVATE KEY-----\ntorn off", MASK),
    ],
)
def test_secrets_are_masked(text: str, expected: str) -> None:
    assert mask(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "bearer authentication",
        "token verification",
        "Token validation_middleware",
        "token_bucket: ratelimit_default_bucket",
        "max_tokens: 4096",
        "SELECT * FROM users WHERE password = $1 AND token = ?",
        "UPDATE users SET password=%s, pwd=:pwd",
        "password: null",
        "http://localhost:8080/a@b",
        "GET /keys/{id}",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "basic-auth middleware",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert mask(text) == text


def test_every_pattern_says_what_it_masks() -> None:
    assert all(what and pattern.pattern for what, pattern, _ in SECRETS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x00b\x1b[31m", "a\\x00b\\x1b[31m"),
        ("invoice\u202efdp.exe", "invoice\\u202efdp.exe"),
        ("\u2066x\u2069\u200f", "\\u2066x\\u2069\\u200f"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("tag \U000e0041", "tag \\U000e0041"),
        ("line\nand\ttab", "line\nand\ttab"),
        ("\u05e9\u05dc\u05d5\u05dd 日本 é", "\u05e9\u05dc\u05d5\u05dd 日本 é"),
        ("\ud800", "\\ud800"),
    ],
)
def test_unseen_characters_are_written_out(text: str, expected: str) -> None:
    assert visible(text) == expected


def test_long_text_is_cut_and_says_so() -> None:
    text = clean("é" * 1_000_000)
    assert len(text) < LIMIT + 100
    assert text.endswith("(cut: 20,000 of 1,000,000 characters; the capture has all of it)")


def test_a_secret_that_the_cut_tears_apart_is_masked() -> None:
    text = clean("x" * (LIMIT - 20) + " token=" + "deadbeef01" * 10)
    assert "deadbeef" not in text


def test_text_of_control_characters_only_is_cut_too() -> None:
    assert len(clean("\x00" * LIMIT)) < 2 * LIMIT + 100


@given(st.text(max_size=300))
def test_what_is_clean_is_plain_text_and_stays_so(text: str) -> None:
    once = clean(text)
    once.encode("utf-8")
    assert visible(once) == once
    assert mask(once) == once


def test_data_is_cleaned_at_every_depth() -> None:
    data = {"a\x00": ["Bearer abcdef123456789", {"b": "\u202e"}], "n": 1, "none": None}
    cleaned = clean_all(data)
    assert cleaned == {"a\\x00": [f"Bearer {MASK}", {"b": "\\u202e"}], "n": 1, "none": None}
    json.dumps(cleaned)


@pytest.mark.parametrize(
    ("item", "cleaned"),
    [
        ({"password": "two words"}, {"password": MASK}),
        ({"db.pwd": 1234}, {"db.pwd": MASK}),
        (
            {"password": None, "passwords.enabled": False},
            {"password": None, "passwords.enabled": False},
        ),
        ({"x-api-key": "0123456789abcdef"}, {"x-api-key": MASK}),
        ({"max_tokens": "4096"}, {"max_tokens": "4096"}),
        ({"headers": {"cookie": "session=0123456789ab"}}, {"headers": {"cookie": MASK}}),
    ],
)
def test_keys_tell_secrets(item: object, cleaned: object) -> None:
    assert clean_all(item) == cleaned


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.one_of(st.text(max_size=30), st.integers(), st.lists(st.text(max_size=5))),
        max_size=5,
    )
)
def test_json_stays_json(item: dict[str, object]) -> None:
    text = clean_json(json.dumps(item))
    assert json.loads(text) == clean_all(item)
    assert clean_all(text) is text


def test_quoted_secrets_do_not_break_json() -> None:
    text = clean_json(json.dumps({"body": 'pwd="abc\\" and more'}))
    assert "abc" not in text
    json.loads(text)


def test_what_is_no_json_becomes_a_string() -> None:
    assert json.loads(clean_json("{torn")) == "{torn"


def test_many_or_long_attributes_are_cut_and_counted() -> None:
    many = json.loads(clean_json(json.dumps({f"key{i}": "v" * 1000 for i in range(500)})))
    assert len(many) == 101
    assert many["…"].startswith("400 more")
    assert many["key0"].endswith("(1,000 characters)")
