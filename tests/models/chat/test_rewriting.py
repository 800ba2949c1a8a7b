"""What a provider is told to make a question stand alone, and what of its answer is used."""

from __future__ import annotations

import pytest

from models.chat.engine import Reply, cost_of, usage_of
from models.chat.ports import Attempt, Message, Price, UsageReport
from models.chat.questions import LONGEST
from models.chat.rewriting import Rewriting, can_be_asked, most_tokens, prompt_for, usable

ASKED = Message("user", "What was Globex's revenue in 2024?")


class TestPrompt:
    def test_the_question_stands_last_and_each_message_is_cut(self) -> None:
        history = [*[ASKED] * 20, Message("assistant", "x" * 50_000)]
        told = prompt_for("m", "And in 2023?", history).messages[-1].content
        assert told.endswith("Last question: And in 2023?")
        assert 0 < told.count(ASKED.content) < 20
        assert len(told) < 5_000
        assert most_tokens("And in 2023?", history) < 2_000

    def test_a_first_question_and_a_very_long_one_lean_on_nothing(self) -> None:
        assert can_be_asked("And in 2023?", [ASKED])
        assert not can_be_asked("And in 2023?", [])
        assert not can_be_asked("And in 2023?", [Message("assistant", "Welcome.")])
        assert not can_be_asked("x" * (LONGEST + 1), [ASKED])


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        (" What was revenue in 2023?\n", "What was revenue in 2023?"),
        ("“What was revenue in 2023?”", "What was revenue in 2023?"),
        ('"What was revenue in 2023?"', "What was revenue in 2023?"),
        ("", None),
        ('""', None),
        ("Here is the question:\n\nWhat was revenue?", None),
        ("x" * (LONGEST + 1), None),
    ],
)
def test_only_a_question_is_used(answer: str, question: str | None) -> None:
    assert usable(answer) == question


class TestSpent:
    @staticmethod
    def reply(price: Price | None = None, spent: UsageReport | None = None) -> Reply:
        made = Reply("id", 0.0, text="Yes.", usage=UsageReport(100, 10, "provider"))
        made.attempts.append(Attempt("Second", "m", None, None, 1.0, 2.0, True, Price(2.0, 3.0)))
        made.rewriting = Rewriting("First", "m", 5.0, "Q?", None, spent, price)
        return made

    def test_both_calls_are_counted_each_at_its_own_price(self) -> None:
        reply = self.reply(Price(10.0, 20.0), UsageReport(7, 1, "provider"))
        assert usage_of(reply, UsageReport(0, 0, "estimated")) == {
            "prompt_tokens": 107,
            "completion_tokens": 11,
            "total_tokens": 118,
            "source": "provider",
        }
        cost = cost_of(reply, UsageReport(0, 0, "estimated"))
        assert cost == pytest.approx((100 * 2 + 10 * 3 + 7 * 10 + 1 * 20) / 1_000_000)

    def test_a_call_whose_price_nobody_told_leaves_the_cost_open(self) -> None:
        assert (
            cost_of(self.reply(None, UsageReport(7, 1, "estimated")), UsageReport(0, 0, "estimated")) is None
        )

    def test_a_call_that_failed_at_once_costs_nothing(self) -> None:
        reply = self.reply()
        assert usage_of(reply, UsageReport(0, 0, "estimated"))["total_tokens"] == 110
        assert cost_of(reply, UsageReport(0, 0, "estimated")) == pytest.approx(230 / 1_000_000)
