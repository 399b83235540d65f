"""Names the format of a row by its keys, and for `text` by its beginning, so that a file may mix
formats.

A field that is null does not count, as tables that hold several formats fill the columns of the
others with null; but an answer that is null is a fault of its row and not a sign of another format.
"""

from collections.abc import Callable

from stages.common.core.records import Record, Shape
from stages.common.ingest.layouts import comparisons, dialogues, moss, pairs, transcripts, turns
from stages.common.ingest.layouts.fields import first, string

Parser = Callable[[Record], Record]
UTTERANCE = "utterances"


def text(row: Record) -> Record:
    """`{"text": …}` -> document."""
    return {"text": string(row, "text")}


FORMATS: dict[str, tuple[Shape, Parser]] = {
    "text": ("documents", text),
    "alpaca": ("conversations", pairs.pair),
    "question and answer": ("conversations", pairs.pair),
    "chatglm": ("conversations", pairs.pair),
    "sharegpt": ("conversations", turns.sharegpt),
    "messages": ("conversations", turns.messages),
    "moss": ("conversations", moss.moss),
    "transcript": ("conversations", transcripts.conversation),
    "dialogue": ("conversations", dialogues.dialogue),
    "hh": ("comparisons", comparisons.transcript_pair),
    "dpo": ("comparisons", comparisons.preference),
    "sharegpt comparison": ("comparisons", comparisons.preference),
    "comparison": ("comparisons", comparisons.ranked),
    "prompt": ("prompts", turns.prompt),
    "prompt text": ("prompts", pairs.prompt),
    "question": ("questions", turns.question),
    "question text": ("questions", pairs.question),
}
PREFERENCE_KEYS = frozenset(key for keys in comparisons.PREFERENCES for key in keys)
TRANSCRIPT_KEYS = ("plain_text", "transcript")
COLUMNS = frozenset(
    {
        *("text", "messages", "tools", "chat", "responses", "ranks", "scores", "categories", "annotator"),
        *("reference", "group", "category", "history", "id", "source"),
        *(*turns.SHAREGPT_KEYS, *turns.SYSTEM_KEYS, *TRANSCRIPT_KEYS, *dialogues.DIALOGUE_KEYS),
        *PREFERENCE_KEYS,
        *(key for asked, answers in pairs.ANSWERS.items() for key in (asked, *answers)),
    }
)
"""Names by which the head of a table is known."""


def recognise(row: Record) -> str | None:
    """Return the name of the row's format in `FORMATS`, `UTTERANCE`, or None."""
    given = {key for key, value in row.items() if value is not None}
    if not given.isdisjoint(PREFERENCE_KEYS):
        return _preference(row, given)
    if "conversations" in given or "conversation" in given:
        return "sharegpt"
    if "messages" in given:
        return _messages(row, given)
    if "responses" in given and not given.isdisjoint(pairs.ASKED):
        return "comparison"
    if "chat" in given:
        return "moss"
    if not given.isdisjoint(TRANSCRIPT_KEYS):
        return "transcript"
    if not given.isdisjoint(dialogues.DIALOGUE_KEYS):
        return "dialogue"
    return UTTERANCE if dialogues.is_line(row) else _question(row, given)


def _preference(row: Record, given: set[str]) -> str | None:
    if not given.isdisjoint(turns.SHAREGPT_KEYS):
        return "sharegpt comparison"
    if "messages" in given or not given.isdisjoint(pairs.ASKED):
        return "dpo"
    better, worse = comparisons.preference_keys(row) or comparisons.PREFERENCES[0]
    if better not in row or worse not in row:
        return None
    return "dpo" if isinstance(row[better], list) or isinstance(row[worse], list) else "hh"


def _messages(row: Record, given: set[str]) -> str:
    if "group" in given:
        return "question"
    asked = turns.last_role(row["messages"]) == "user"
    return "prompt" if asked and ("reference" in row or "category" in row) else "messages"


def _question(row: Record, given: set[str]) -> str | None:
    asked = first(row, pairs.ASKED)
    if asked and "group" in given and ("reference" in row or "answer" in row):
        return "question text"
    keys = pairs.keys(row)
    if keys:
        if keys[0] == "instruction":
            return "alpaca"
        question = row[keys[0]]
        rounds = isinstance(question, str) and transcripts.START_ROUND.match(question)
        return "chatglm" if rounds or (keys == ("prompt", "response") and "history" in row) else "question and answer"
    if asked and (asked == "prompt" or "reference" in row):
        return "prompt text"
    if "text" in given:
        return "transcript" if isinstance(row["text"], str) and transcripts.is_transcript(row["text"]) else "text"
    return None
