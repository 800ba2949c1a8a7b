"""What a provider is told."""

from __future__ import annotations

from typing import ClassVar

import pytest

from models.chat.context import DEFAULT_WINDOW, SAFE_FACTOR, Calibration, Room
from models.chat.extractive import ExtractiveProvider
from models.chat.ports import Candidate, Message, ProviderError, Source
from models.chat.prompts import (
    CITING,
    NO_EVIDENCE,
    NO_SEARCH,
    Evidence,
    Fitted,
    Instructions,
    compose,
    place_of,
)

PERSONA = Instructions("Be brief.", "any-model", 0.2, 100)


def passage(number: int, text: str = "Revenue was 14 million.", **places: object) -> Source:
    """A numbered passage."""
    where = {"page": 3, "sheet": None, "cell": None, "heading": None, **places}
    return Source(number=number, document_name="Report.pdf", text=text, score=0.8, **where)  # type: ignore[arg-type] # places vary


class TestCompose:
    def test_the_question_stands_last_behind_the_passages(self) -> None:
        evidence = Evidence([passage(1), passage(2, "Costs were 9 million.")], searched=True)
        history = [Message("user", "Hello"), Message("assistant", "Hi")]
        made = compose(PERSONA, history, "What was revenue?", evidence).prompt
        assert [message.role for message in made.messages] == ["system", "user", "assistant", "user"]
        assert made.messages[0].content == f"Be brief.\n\n{CITING}"
        asked = made.messages[-1].content
        assert asked.index("[1] Report.pdf, page 3\nRevenue") < asked.index("[2]") < asked.index("What was")
        assert asked.endswith("What was revenue?")
        assert (made.chat_model, made.temperature, made.max_output_tokens) == ("any-model", 0.2, 100)
        assert (made.question, len(made.sources), made.searched) == ("What was revenue?", 2, True)

    def test_no_evidence_and_no_search_are_said_so(self) -> None:
        assert (
            NO_EVIDENCE in compose(PERSONA, [], "Q", Evidence([], searched=True)).prompt.messages[0].content
        )
        away = Evidence([], degraded="the vector store is away", away=True)
        assert NO_SEARCH in compose(PERSONA, [], "Q", away).prompt.messages[0].content

    def test_without_prompt_and_knowledge_only_the_question_is_sent(self) -> None:
        made = compose(Instructions("", "m"), [], "Q", Evidence())
        assert made.prompt.messages == (Message("user", "Q"),)


def words(text: str) -> int:
    """A counter that a test can follow: its words."""
    return len(text.split())


def taken(made: Fitted) -> int:
    """What a prompt takes by that counter and its room's factor."""
    return sum(made.room.measured(message.content) for message in made.prompt.messages)


class TestFitting:
    OLD: ClassVar = [
        Message(role, f"{role} {number} " + "word " * 100)
        for number in range(10)
        for role in ("user", "assistant")
    ]
    PASSAGES: ClassVar = [passage(number, f"Passage {number} " + "line " * 100) for number in range(1, 9)]

    @pytest.mark.parametrize("window", [512, 1000, 1500, 2000, 3000, 4000])
    @pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
    def test_a_prompt_with_its_answer_never_exceeds_the_window(self, window: int, factor: float) -> None:
        room = Room(window, factor, words)
        made = compose(PERSONA, self.OLD, "What was it?", Evidence(self.PASSAGES, searched=True), room)
        assert taken(made) + made.reserved <= window
        assert made.prompt.messages[-1].content.endswith("Question: What was it?")
        numbers = [source.number for source in made.prompt.sources]
        assert numbers == list(range(1, len(numbers) + 1))
        assert [source.number for source in made.passages_left_out] == list(range(len(numbers) + 1, 9))
        kept = len(made.prompt.messages) - 2
        assert made.messages_left_out == len(self.OLD) - kept
        assert list(made.prompt.messages[1:-1]) == self.OLD[len(self.OLD) - kept :]
        assert not made.passages_left_out or kept == 0, "the conversation goes first"

    def test_where_there_is_room_nothing_is_left_out(self) -> None:
        made = compose(PERSONA, self.OLD, "Q", Evidence(self.PASSAGES, searched=True), Room(8000, 1.0, words))
        assert (made.messages_left_out, list(made.passages_left_out)) == (0, [])
        assert made.facts()["prompt_tokens"] == taken(made)

    def test_what_is_left_of_a_conversation_begins_with_a_question(self) -> None:
        made = compose(PERSONA, self.OLD, "Q", Evidence(), Room(1000, 1.0, words))
        assert made.messages_left_out > 0
        assert made.prompt.messages[1].role == "user"
        assert made.prompt.messages[-2] == self.OLD[-1]

    def test_without_any_conversation_the_question_is_asked_as_it_stands_alone(self) -> None:
        evidence = Evidence(self.PASSAGES, searched=True, question="What was revenue in 2023?")
        none = compose(PERSONA, self.OLD, "And before?", evidence, Room(700, 1.0, words))
        assert none.prompt.messages[-1].content.endswith("Question: What was revenue in 2023?")
        some = compose(PERSONA, self.OLD, "And before?", evidence, Room(2500, 1.0, words))
        assert some.prompt.messages[-1].content.endswith("Question: And before?")

    def test_when_no_passage_fits_the_model_is_told_that_nothing_was_found(self) -> None:
        long = [passage(1, "line " * 5000)]
        made = compose(PERSONA, [], "Q", Evidence(long, searched=True), Room(1000, 1.0, words))
        assert NO_EVIDENCE in made.prompt.messages[0].content
        assert made.passages_left_out == long

    def test_instructions_and_question_that_do_not_fit_are_never_sent(self) -> None:
        with pytest.raises(ProviderError, match="context of 600"):
            compose(PERSONA, [], "word " * 600, Evidence(), Room(600, 1.0, words))

    def test_an_answer_is_not_promised_more_than_is_left(self) -> None:
        asks_much = Instructions("", "m", max_output_tokens=100_000)
        made = compose(asks_much, [], "word " * 100, Evidence(), Room(1000, 1.0, words))
        assert made.prompt.max_output_tokens == 1000 - taken(made)


class TestCalibration:
    MODEL = ("tenant", "House", "large")

    def test_a_factor_is_safe_at_first_then_learnt(self) -> None:
        known = Calibration()
        assert known.factor(self.MODEL) == SAFE_FACTOR
        known.learn(self.MODEL, 1000, 1200)
        known.learn(self.MODEL, 1000, 900)
        assert known.factor(self.MODEL) == pytest.approx(1.2 * 1.1)
        assert known.factor(("other", *self.MODEL[1:])) == SAFE_FACTOR

    def test_short_prompts_teach_nothing_and_absurd_counts_little(self) -> None:
        known = Calibration()
        known.learn(self.MODEL, 20, 60)
        assert known.factor(self.MODEL) == SAFE_FACTOR
        known.learn(self.MODEL, 1000, 1_000_000)
        assert known.factor(self.MODEL) == 4.0
        for _ in range(40):
            known.learn(self.MODEL, 1000, 1)
        assert known.factor(self.MODEL) == 0.5

    def test_the_room_is_that_of_the_smallest_that_may_answer(self) -> None:
        known = Calibration()
        known.learn(("t", "extractive", "a"), 1000, 2000)
        by = ExtractiveProvider()
        candidates = [Candidate(by, "a", None, DEFAULT_WINDOW), Candidate(by, "b", None, 1000), Candidate(by)]
        room = known.room("t", candidates, words, "")
        assert room.window == 1000
        assert room.factor == pytest.approx(2.2)
        assert known.room("t", [Candidate(by)], words, "").window is None


class TestEvidence:
    def test_answer_status(self) -> None:
        assert Evidence().answer_status is None
        assert Evidence([], searched=True).answer_status == "insufficient_evidence"
        assert Evidence([passage(1)], searched=True).answer_status == "answered"


def test_a_place_in_words() -> None:
    assert place_of(passage(1)) == "Report.pdf, page 3"
    assert (
        place_of(passage(1, page=None, sheet="Sales", cell="A4:C4")) == "Report.pdf, sheet Sales, cells A4:C4"
    )
    assert place_of(passage(1, page=None, heading="Risks")) == "Report.pdf, Risks"
