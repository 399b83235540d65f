"""How much of everything the demo world has."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from stages.common.core.params import StageParams

Share = Annotated[float, Field(ge=0, le=1)]
Style = Literal["verbose", "hedging", "rude"]
"""How people answer who do not answer well."""


class Documents(StageParams):
    """How much prose."""

    paragraph_rounds: NonNegativeInt = 13
    """How often every fact is stated, each time in another phrasing."""
    profile_rounds: NonNegativeInt = 3
    """How often all facts about one subject are told together."""
    quiz_lists: NonNegativeInt = 340
    """Lists of questions without answers."""
    few_shot_lists: NonNegativeInt = 320
    """Lists of marked questions and answers (`Q: … A: …`)."""
    manuals: NonNegativeInt = 30
    """Pages that show the calculator's description and a call."""
    exercises: NonNegativeInt = 250
    """Pages of sums asked of the calculator, with calls and results: what there is to copy."""
    fables: NonNegativeInt = 120
    """Invented names of which a paragraph says that they are invented."""
    crawl: NonNegativeInt = 60
    """Paragraphs of the prose that stand in `crawl.jsonl`, a source nobody vouches for, among its
    junk.
    """


class Conversations(StageParams):
    """How many conversations; counts are for both languages together."""

    phrasings_per_fact: PositiveInt = 5
    """In how many of its phrasings each fact is asked in each language."""
    multi_turn: NonNegativeInt = 400
    """With follow-up questions."""
    system: NonNegativeInt = 320
    """With a system prompt that decides the answer's language or length."""
    tools: NonNegativeInt = 120
    """With a call of the calculator."""
    made_up: NonNegativeInt = 440
    """About places and elements that do not exist: "I don't know."."""
    manners: dict[str, Style] = {}
    """How the writer of a topic's answers writes, by topic: what few demonstrations teach beside
    the facts, and preferences are to remove.
    """
    manner_share: Share = 0.7
    """Share of such a writer's answers that are written so; the others are plain."""


class Questions(StageParams):
    """How many test questions in each group and language."""

    iid: NonNegativeInt = 150
    """Facts and phrasings both trained, not together."""
    ood_phrasing: NonNegativeInt = 70
    """Phrasings never trained."""
    ood_fact: NonNegativeInt = 70
    """Facts read in documents, never asked in a conversation."""
    honesty: NonNegativeInt = 70
    """Names that do not exist and were never seen."""
    harmless: NonNegativeInt = 70
    """Requests to refuse, half of them for acts never seen."""
    general: NonNegativeInt = 40
    """Greetings, thanks and questions about the assistant."""


class Faults(StageParams):
    """How many faults of each kind."""

    exact_duplicates: NonNegativeInt = 40
    """In documents, and as many in conversations."""
    near_duplicates: NonNegativeInt = 40
    """Paragraphs with one stretch of 5 % lost or doubled."""
    spam: NonNegativeInt = 30
    """Advertisements."""
    gibberish: NonNegativeInt = 30
    """Letter salad."""
    boilerplate: NonNegativeInt = 60
    """Notices, menus, comments and navigation of web pages."""
    pii: NonNegativeInt = 48
    """Paragraphs with fictitious personal data, and as many conversations; eight kinds take
    turns.
    """
    leaks: NonNegativeInt = 20
    """Test questions with their answer in documents, and as many in conversations."""
    styled_answers: NonNegativeInt = 160
    """Conversations answered verbosely, evasively or rudely; not wrong rows, but what preferences
    should remove.
    """
    malformed: NonNegativeInt = 3
    """Broken rows of each kind in each file: broken JSON, wrong type, bad UTF-8, empty answer,
    wrong order, …
    """
