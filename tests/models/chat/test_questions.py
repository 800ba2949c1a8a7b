"""Questions that lean on the one before."""

from __future__ import annotations

import pytest

from models.chat.ports import Message
from models.chat.questions import standalone

FIRST = "What was Harbour Lamps' operating income in 2021?"


@pytest.mark.parametrize(
    ("question", "alone"),
    [
        ("And the year before?", "What was Harbour Lamps' operating income in 2020?"),
        ("and in the following year?", "What was Harbour Lamps' operating income in 2022?"),
        ("What about 2018?", "What was Harbour Lamps' operating income in 2018?"),
        ("And Globex?", "What was Globex' operating income in 2021?"),
        ("How about Globex in 2019?", "What was Globex' operating income in 2019?"),
        ("and net income?", "Net income (Harbour Lamps, 2021)?"),
        ("What was its gross margin?", "What was its gross margin (Harbour Lamps, 2021)?"),
        ("And capex the year before?", "Capex the year before (Harbour Lamps, 2020)?"),
    ],
)
def test_take_over_what_they_leave_out(question: str, alone: str) -> None:
    assert standalone(question, [Message("user", FIRST), Message("assistant", "It was 12 [1].")]) == alone


@pytest.mark.parametrize(
    "question",
    [
        "What was Globex's net income in 2019?",
        "Which risks does Globex name?",
        "What are the total current liabilities?",
        "How much did Globex spend on research the year before it listed?",
        "Hello",
        "",
        "???",
    ],
)
def test_are_left_alone_where_they_stand_alone(question: str) -> None:
    before = [Message("user", FIRST)] if len(question) > 10 else []
    assert standalone(question, before) == question


def test_follow_one_another() -> None:
    history = [
        Message("user", FIRST),
        Message("assistant", "12"),
        Message("user", "And Globex?"),
        Message("assistant", "13"),
    ]
    assert standalone("and the year before?", history) == "What was Globex' operating income in 2020?"


def test_without_a_year_the_relative_one_is_added() -> None:
    history = [Message("user", "How many lamps does Globex sell?")]
    assert standalone("And the year before?", history) == "How many lamps does Globex sell (the year before)?"


def test_quarters_change_places() -> None:
    history = [Message("user", "What was Globex's revenue in the second quarter of 2021?")]
    assert standalone("And in Q3?", history) == "What was Globex's revenue in the Q3 of 2021?"
