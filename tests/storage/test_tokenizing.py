"""Counting tokens by the tokenizer that is installed."""

from __future__ import annotations

import pytest

from storage import tokenizing


def test_english_is_counted_by_its_words_and_line_ends() -> None:
    assert tokenizing.name() == "tokenizer"
    assert tokenizing.count("") == 0
    assert tokenizing.count("Net sales rose") == 3
    assert tokenizing.count("Net sales\nrose\n") == 5
    assert tokenizing.count("26,251") == 3


@pytest.mark.parametrize("text", ["😀😀😀", "aGVsbG8gd29ybGQ" * 20, "収益が増加した"])
def test_what_it_does_not_know_is_not_counted_too_low(text: str) -> None:
    assert len(text.encode()) / 3 <= tokenizing.count(text) <= len(text.encode())


def test_long_texts_are_counted_in_full_and_nothing_is_cut() -> None:
    assert tokenizing.count("word " * 50_000) == pytest.approx(50_000, rel=0.001)


def test_half_a_character_is_counted_too() -> None:
    assert tokenizing.count("a \ud800 b") >= 3
