"""The table of known layouts: what keys a row needs, what it becomes, who parses it.

docs/data.md shows it, the heads of tables are known by it, and a row that is unknown is told which
layout comes nearest and what it lacks of it. `recognise.py` says which layout a row is of.
"""

from collections.abc import Callable
from typing import NamedTuple

from stages.common.core.records import Record, Shape
from stages.common.ingest.layouts import (
    answers,
    comparisons,
    dialogues,
    meaning,
    moss,
    pairs,
    questions,
    transcripts,
    trees,
    turns,
)
from stages.common.ingest.layouts.fields import string

Parser = Callable[[Record], Record]
Records = list[tuple[Shape, Record]]
UTTERANCE, TREE_MESSAGE = "utterances", "tree messages"
CORNELL = "+++$+++"
"""Marks a line of Cornell's that is in a conversation, whose record holds it."""


class Layout(NamedTuple):
    """The shape of a layout's records, its parser, and its keys: of every group one is needed.

    A parser of several records to a row, of any shape, stands under `several`.
    """

    shape: Shape
    parse: Parser | None
    needs: tuple[tuple[str, ...], ...]
    says: str
    several: Callable[[Record], Records] | None = None

    def records(self, row: Record) -> Records:
        """Return the row's records. Raises Malformed."""
        if self.several:
            return self.several(row)
        assert self.parse is not None
        return [(self.shape, self.parse(row))]


def text(row: Record) -> Record:
    """`{"text": …}` -> document."""
    return {"text": string(row, "text")}


def line_elsewhere(row: Record) -> Records:
    """Take a line that a conversation of another file holds."""
    row.get(CORNELL)
    return []


ASKED = (pairs.ASKED,)
TALK = (turns.SHAREGPT_KEYS,)
MESSAGES = (("messages",),)
BETTER, WORSE = (tuple(keys[side] for keys in comparisons.PREFERENCES) for side in (0, 1))
PAIR = (tuple(pairs.ANSWERS), tuple(dict.fromkeys(key for keys in pairs.ANSWERS.values() for key in keys)))
TRANSCRIPT_KEYS = ("plain_text", "transcript")
LAYOUTS: dict[str, Layout] = {
    "text": Layout("documents", text, (("text",),), "plain JSON documents, Pile, C4, WikiText"),
    "alpaca": Layout(
        "conversations", pairs.pair, (("instruction",), pairs.ANSWERS["instruction"]), "Alpaca, BELLE, Dolly"
    ),
    "question and answer": Layout(
        "conversations", pairs.pair, PAIR, "GSM8K, Med-ChatGLM, COIG, Medical-o1, NuminaMath, 问/答"
    ),
    "chatglm": Layout(
        "conversations", pairs.pair, (("prompt",), ("response",), ("history",)), "ChatGLM-6B's fine-tuning data"
    ),
    "instances": Layout("conversations", None, (("instruction",), ("instances",)), "Self-Instruct", pairs.instances),
    "sharegpt": Layout("conversations", turns.sharegpt, TALK, "ShareGPT, Firefly, Capybara, Glaive"),
    "messages": Layout("conversations", turns.messages, MESSAGES, "OpenAI, UltraChat 200k, Tulu, ms-swift"),
    "moss": Layout("conversations", moss.moss, (("chat",),), "MOSS"),
    "transcript": Layout(
        "conversations",
        transcripts.conversation,
        ((*TRANSCRIPT_KEYS, "text"),),
        "Guanaco, `[INST]`, ChatML, Alpaca's prompts",
    ),
    "dialogue": Layout("conversations", dialogues.dialogue, (dialogues.DIALOGUE_KEYS,), "DailyDialog, UltraChat"),
    UTTERANCE: Layout(
        "conversations",
        None,
        (("id",), dialogues.CONVERSATION_KEYS, dialogues.SPEAKER_KEYS, ("text",), dialogues.REPLY_KEYS),
        "ConvoKit (Cornell), a row a line",
    ),
    "cornell line": Layout(
        "conversations", None, ((CORNELL,),), "Cornell's movie_lines.txt beside movie_conversations.txt", line_elsewhere
    ),
    "tree": Layout("conversations", None, (("prompt",),), "OpenAssistant, a row a tree", trees.tree),
    TREE_MESSAGE: Layout(
        "conversations",
        None,
        (("message_id",), ("parent_id",), ("message_tree_id",), ("text",), ("role",)),
        "OpenAssistant, a row a message",
    ),
    "hh": Layout("comparisons", comparisons.transcript_pair, (BETTER, WORSE), "HH-RLHF"),
    "dpo": Layout(
        "comparisons", comparisons.preference, (BETTER, WORSE), "UltraFeedback binarized, Orca, stack-exchange-paired"
    ),
    "sharegpt comparison": Layout("comparisons", comparisons.preference, (*TALK, BETTER, WORSE), "LLaMA-Factory's DPO"),
    "rejected answer": Layout(
        "comparisons", comparisons.against, (("messages", *pairs.ANSWERS), comparisons.REJECTED), "ms-swift's DPO"
    ),
    "openai preference": Layout(
        "comparisons",
        comparisons.preferred,
        (("input",), ("preferred_output",), ("non_preferred_output",)),
        "OpenAI's preference fine-tuning",
    ),
    "comparison": Layout(
        "comparisons", comparisons.ranked, (*ASKED, ("responses",), ("ranks", "scores")), "Lathe's own, ranked lists"
    ),
    "scored answers": Layout(
        "comparisons", answers.scored, (*ASKED, answers.LISTS), "Nectar, UltraFeedback, H4 Stack Exchange"
    ),
    "saferlhf": Layout(
        "comparisons",
        answers.numbered,
        (*ASKED, ("response_0",), ("response_1",), ("better_response_id",)),
        "PKU-SafeRLHF",
    ),
    "shp": Layout("comparisons", answers.voted, (("history",), ("human_ref_A",), ("human_ref_B",), ("labels",)), "SHP"),
    "webgpt": Layout(
        "comparisons",
        answers.compared,
        (("question",), ("answer_0",), ("answer_1",), ("score_0",), ("score_1",)),
        "WebGPT comparisons",
    ),
    "summaries": Layout(
        "comparisons", answers.summaries, (("info",), ("summaries",), ("choice",)), "summarize-from-feedback"
    ),
    "prompt": Layout("prompts", questions.prompt, (*MESSAGES, ("reference", "category")), "Lathe's own"),
    "prompt text": Layout("prompts", questions.text_prompt, ASKED, "prompts alone"),
    "mt-bench": Layout("prompts", questions.asked_turns, (("turns",),), "MT-bench"),
    "question": Layout("questions", questions.question, (*MESSAGES, ("reference",), ("group",)), "Lathe's own"),
    "question text": Layout(
        "questions", questions.text_question, (*ASKED, ("reference", "answer"), ("group",)), "Lathe's own"
    ),
    "choices": Layout(
        "questions",
        questions.choices,
        (("question",), ("choices", "A"), questions.CHOICE_ANSWERS),
        "C-Eval, CMMLU, MMLU, ARC",
    ),
}
COLUMNS = frozenset(
    {
        *(key for layout in LAYOUTS.values() for group in layout.needs for key in group if len(key) > 1),
        *("tools", "categories", "annotator", "group", "category", "history", "id", "source", "input", "context"),
        *(*turns.SYSTEM_KEYS, *meaning.THOUGHT_KEYS, "prefix"),
    }
)
"""Names by which the head of a table is known."""
KNOWN = COLUMNS | {
    *questions.LETTERS,
    "q",
    "a",
    "问",
    "答",
    *meaning.LABELS,
    *meaning.UNLEARNED,
    "images",
    "audios",
    "videos",
}


def renamed(row: Record) -> Record:
    """Return a row with keys that are known in lower case, as `Question` is, under their known
    names.
    """
    others = {key: low for key in row if key not in KNOWN and (low := key.strip().lower()) in KNOWN and low not in row}
    return {others.get(key, key): value for key, value in row.items()} if others else row


def nearest(row: Record) -> tuple[str, str]:
    """Return the layout that lacks the least of a row, and what it lacks; nothing where none has a
    key of it.
    """
    given = {key for key, value in row.items() if value is not None}
    best = ("", "")
    least = (99, 0)
    for name, layout in LAYOUTS.items():
        lacking = [group for group in layout.needs if given.isdisjoint(group)]
        found = len(layout.needs) - len(lacking)
        if found and (len(lacking), -found) < least:
            least = (len(lacking), -found)
            best = (name, " and ".join(" or ".join(group[:4]) for group in lacking))
    return best
