"""One reply while it is written."""

from __future__ import annotations

import pytest

from models.chat.conversations import MessageStatus
from models.chat.engine import Reply, cited_numbers, end_position, usage_of
from models.chat.ports import Finished, ProviderError, TextDelta, UsageReport


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Revenue rose [1].", {1}),
        ("Both [1, 2] and [10]", {1, 2, 10}),
        ("[1][2]", {1, 2}),
        ("In [2024] and [a] and [] and 1]", set()),
        ("", set()),
    ],
)
def test_numbers_that_stand_in_a_text(text: str, numbers: set[int]) -> None:
    assert cited_numbers(text) == numbers


def test_positions_rise_to_the_end() -> None:
    assert [end_position(length) for length in (0, 1, 5)] == [2, 3, 7]


class TestReply:
    def test_what_is_cited_and_what_was_never_given(self) -> None:
        reply = Reply("id", began=10.0)
        reply.citations = [{"number": 1}, {"number": 2}]
        reply.take(TextDelta("Rose [2]"), 10.5)
        reply.take(TextDelta(" and fell [7]."), 10.6)
        reply.take(UsageReport(5, 6, "provider"), 10.7)
        reply.take(Finished("stop"), 10.7)
        reply.end(MessageStatus.COMPLETE, 11.0)
        assert [citation["cited"] for citation in reply.citations] == [False, True]
        assert reply.uncited == [7]
        assert (reply.first_token_ms, reply.latency_ms) == (500, 1000)
        assert reply.finish_reason == "stop"

    def test_only_the_first_end_counts(self) -> None:
        reply = Reply("id", began=0.0)
        reply.end(MessageStatus.STOPPED, 1.0)
        reply.end(MessageStatus.FAILED, 2.0, ProviderError("provider_timeout", "late"))
        assert (reply.status, reply.error, reply.latency_ms) == (MessageStatus.STOPPED, None, 1000)

    def test_a_nul_never_reaches_the_database(self) -> None:
        reply = Reply("id", began=0.0)
        reply.take(TextDelta("a\0b"), 1.0)
        assert reply.text == "ab"

    def test_usage_is_the_providers_or_an_estimate(self) -> None:
        reply, estimate = Reply("id", began=0.0), UsageReport(3, 4, "estimated")
        assert usage_of(reply, estimate)["source"] == "estimated"
        reply.take(UsageReport(5, 6, "provider"), 1.0)
        assert usage_of(reply, estimate) == {
            "prompt_tokens": 5,
            "completion_tokens": 6,
            "total_tokens": 11,
            "source": "provider",
        }
