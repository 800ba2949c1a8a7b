"""The embedded provider quotes what it was given, and nothing else."""

import asyncio
import re

import pytest

from models.chat.extractive import INSUFFICIENT, NOT_SEARCHED, PASSAGES, ExtractiveProvider, best_quotes
from models.chat.ports import Finished, Message, Prompt, ReplyPart, Source, TextDelta, UsageReport

CASH_FLOWS = """CONSOLIDATED STATEMENTS OF CASH FLOWS
(in thousands)
2021 2022 2023
Net income $ 8,120 $ 9,044 $ 11,302
Purchases of property and equipment (1,410) (1,385) (2,214)
Dividends paid (300) (310) (330)
"""
LETTER = """Dear shareholders, the U.S. orchards of Pomona Inc. Limited had a dry summer. Cider sales
grew by 14 percent because new presses opened in Kent. We thank our growers."""
HISTORY = "Pomona was founded by two sisters. Its first press stands in the museum."


def source(number: int, text: str, *, score: float = 0.5, page: int | None = 1) -> Source:
    return Source(number, f"report-{number}.pdf", page, None, None, None, text, score)


def reply(prompt: Prompt) -> list[ReplyPart]:
    async def collect() -> list[ReplyPart]:
        return [part async for part in ExtractiveProvider().stream(prompt)]

    return asyncio.run(collect())


def asked(question: str, *sources: Source, searched: bool = True, limit: int | None = None) -> Prompt:
    messages = (Message("user", question),)
    return Prompt("extractive", messages, None, limit, question, sources, searched)


def text_of(parts: list[ReplyPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, TextDelta))


class TestReply:
    def test_every_quote_stands_in_its_source_letter_for_letter(self) -> None:
        sources = {1: CASH_FLOWS, 2: LETTER, 3: HISTORY}
        prompt = asked(
            "How much did cider sales grow, and what was spent on property and equipment, by Pomona?",
            *(source(number, text) for number, text in sources.items()),
        )
        blocks = text_of(reply(prompt)).split("\n\n")
        assert blocks[0] == PASSAGES
        assert len(blocks) > 2
        for block in blocks[1:]:
            number = int(re.findall(r"\[(\d+)\]", block)[0])
            quotes = re.findall(r"“(.*?)”", block, re.DOTALL)
            assert quotes
            assert all(quote in sources[number] for quote in quotes)

    def test_a_place_is_named_as_a_reader_would_look_for_it(self) -> None:
        cell = Source(4, "budget.xlsx", None, "Plan", "B7", None, "Rent 1,200 1,300", 0.5)
        assert "budget.xlsx, Plan, B7 [4]" in text_of(reply(asked("What is the rent?", cell)))
        assert "report-1.pdf, page 3 [1]" in text_of(reply(asked("cider", source(1, LETTER, page=3))))

    def test_comes_in_several_pieces_then_usage_then_the_end(self) -> None:
        parts = reply(asked("How much did cider sales grow?", source(1, LETTER)))
        texts, (usage, end) = parts[:-2], parts[-2:]
        assert len(texts) > 2
        assert all(isinstance(part, TextDelta) and part.text for part in texts)
        assert isinstance(usage, UsageReport)
        assert usage.source == "estimated"
        assert usage.completion_tokens > 0
        assert end == Finished("stop")

    def test_says_that_the_evidence_is_insufficient_when_nothing_was_found(self) -> None:
        assert text_of(reply(asked("Who won the cup?"))) == INSUFFICIENT

    def test_says_what_it_can_do_when_nothing_was_searched(self) -> None:
        assert text_of(reply(asked("Hello", searched=False))) == NOT_SEARCHED

    def test_stops_at_the_limit_of_tokens(self) -> None:
        prompt = asked("How much did cider sales grow?", source(1, LETTER), limit=30)
        parts = reply(prompt)
        assert parts[-1] == Finished("length")
        assert text_of(reply(asked(prompt.question, *prompt.sources))).startswith(text_of(parts))

    def test_reading_can_stop_at_any_piece(self) -> None:
        async def first() -> ReplyPart:
            stream = ExtractiveProvider().stream(asked("cider", source(1, LETTER)))
            part = await anext(stream)
            await stream.aclose()
            return part

        assert asyncio.run(first()) == TextDelta(PASSAGES)


class TestBestQuotes:
    def test_the_row_that_the_question_means_comes_with_the_line_of_its_years(self) -> None:
        question = "What did the company spend on property and equipment in 2023?"
        ((_, quotes),) = best_quotes(question, [source(1, CASH_FLOWS)])
        assert quotes[:2] == ["2021 2022 2023", "Purchases of property and equipment (1,410) (1,385) (2,214)"]

    def test_the_words_of_filings_are_known(self) -> None:
        ((_, quotes),) = best_quotes("How high was capex?", [source(1, CASH_FLOWS)])
        assert "Purchases of property and equipment (1,410) (1,385) (2,214)" in quotes

    def test_a_sentence_runs_over_line_ends_and_stops_at_its_own(self) -> None:
        ((_, quotes),) = best_quotes("Why did cider sales grow?", [source(1, LETTER)])
        assert quotes == ["Cider sales\ngrew by 14 percent because new presses opened in Kent."]

    def test_a_number_keeps_the_scale_that_the_next_line_begins_with(self) -> None:
        text = "Investments had a carrying value of $1.5\nbillion 2,019 2,020 1,403 77\n"
        ((_, quotes),) = best_quotes("What carrying value had the investments?", [source(1, text)])
        assert "carrying value of $1.5\nbillion" in quotes[0]
        assert all(quote in text for quote in quotes)

    def test_abbreviations_end_no_sentence(self) -> None:
        ((_, quotes),) = best_quotes("Were the orchards dry?", [source(1, LETTER)])
        expected = "Dear shareholders, the U.S. orchards of Pomona Inc. Limited had a dry summer."
        assert quotes == [expected]

    def test_figures_are_preferred_when_a_figure_is_asked_for(self) -> None:
        told = [f"Cider sales were a joy to {who}." for who in ("all", "us", "some", "many")]
        passage = source(1, " ".join([*told, "Cider sales were 14 million."]))
        shown = best_quotes("How large were cider sales?", [passage])[0][1]
        assert "Cider sales were 14 million." in shown

    def test_a_rare_word_outweighs_common_ones(self) -> None:
        texts = [f"The report of the group, part {n}." for n in range(9)]
        shown = best_quotes("group perry", [source(1, " ".join([*texts, "The perry harvest."]))])[0][1]
        assert shown == ["The perry harvest."]

    def test_the_order_of_retrieval_stands(self) -> None:
        given = [source(1, "Cider was sold."), source(2, "Cider sales of 14 million were sales of cider.")]
        assert [shown.number for shown, _ in best_quotes("How large were cider sales?", given)] == [1, 2]

    def test_without_a_word_in_common_the_given_order_stands(self) -> None:
        found = best_quotes("zzz", [source(1, HISTORY), source(2, LETTER)])
        assert [(one.number, quotes) for one, quotes in found][0] == (
            1,
            ["Pomona was founded by two sisters."],
        )

    @pytest.mark.parametrize(
        "text", ["", " \n\n ", "....", "(", "1,2,3", "a" * 5_000, "x y\n" * 2_000, "§ ¶ 語"]
    )
    def test_any_text_can_be_cut(self, text: str) -> None:
        for _, quotes in best_quotes("x a 語", [source(1, text)]):
            assert all(quote in text and len(quote) <= 600 for quote in quotes)
