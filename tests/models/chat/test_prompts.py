"""What a provider is told."""

from __future__ import annotations

from models.chat.ports import Message, Source, estimate_tokens
from models.chat.prompts import (
    CITING,
    CONTEXT_TOKENS,
    NO_EVIDENCE,
    NO_SEARCH,
    Evidence,
    Instructions,
    compose,
    fitting,
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
        made = compose(PERSONA, history, "What was revenue?", evidence)
        assert [message.role for message in made.messages] == ["system", "user", "assistant", "user"]
        assert made.messages[0].content == f"Be brief.\n\n{CITING}"
        asked = made.messages[-1].content
        assert asked.index("[1] Report.pdf, page 3\nRevenue") < asked.index("[2]") < asked.index("What was")
        assert asked.endswith("What was revenue?")
        assert (made.chat_model, made.temperature, made.max_output_tokens) == ("any-model", 0.2, 100)
        assert (made.question, len(made.sources), made.searched) == ("What was revenue?", 2, True)

    def test_no_evidence_and_no_search_are_said_so(self) -> None:
        assert NO_EVIDENCE in compose(PERSONA, [], "Q", Evidence([], searched=True)).messages[0].content
        away = Evidence([], degraded="the vector store is away", away=True)
        assert NO_SEARCH in compose(PERSONA, [], "Q", away).messages[0].content

    def test_without_prompt_and_knowledge_only_the_question_is_sent(self) -> None:
        made = compose(Instructions("", "m"), [], "Q", Evidence())
        assert made.messages == (Message("user", "Q"),)

    def test_an_old_conversation_is_cut_to_what_fits_and_begins_with_a_question(self) -> None:
        old = [Message(role, f"{role} " + "word " * 500) for _ in range(40) for role in ("user", "assistant")]
        made = compose(PERSONA, old, "Q", Evidence())
        kept = made.messages[1:]
        assert 2 < len(kept) < len(old)
        assert kept[0].role == "user"
        assert kept[-1].content == "Q"
        assert kept[-2] == old[-1]
        assert sum(estimate_tokens(message.content) for message in made.messages) <= CONTEXT_TOKENS


class TestEvidence:
    def test_answer_status(self) -> None:
        assert Evidence().answer_status is None
        assert Evidence([], searched=True).answer_status == "insufficient_evidence"
        assert Evidence([passage(1)], searched=True).answer_status == "answered"

    def test_the_best_passages_that_fit_and_at_least_one(self) -> None:
        long = [passage(number, "word " * 2000) for number in range(1, 6)]
        kept = fitting(long)
        assert 1 <= len(kept) < 5
        assert [source.number for source in kept] == list(range(1, len(kept) + 1))
        assert len(fitting([passage(1, "word " * 100_000)])) == 1


def test_a_place_in_words() -> None:
    assert place_of(passage(1)) == "Report.pdf, page 3"
    assert (
        place_of(passage(1, page=None, sheet="Sales", cell="A4:C4")) == "Report.pdf, sheet Sales, cells A4:C4"
    )
    assert place_of(passage(1, page=None, heading="Risks")) == "Report.pdf, Risks"
