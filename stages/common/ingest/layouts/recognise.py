"""Names the layout of a row by its keys, and for `text` by its beginning, so that a file may mix
layouts.

A field that is null does not count, as tables that hold several layouts fill the columns of the
others with null; but an answer that is null is a fault of its row and not a sign of another layout.
"""

from stages.common.core.records import Record
from stages.common.ingest.layout_table import CORNELL, LAYOUTS, TRANSCRIPT_KEYS, TREE_MESSAGE, UTTERANCE
from stages.common.ingest.layouts import answers, comparisons, dialogues, pairs, questions, transcripts, trees, turns
from stages.common.ingest.layouts.fields import first

PREFERENCE_KEYS = frozenset(key for keys in comparisons.PREFERENCES for key in keys) - {"rejected_messages"}


def recognise(row: Record) -> str | None:
    """Return the name of the row's layout in `LAYOUTS`, or None."""
    given = {key for key, value in row.items() if value is not None}
    if not given.isdisjoint(PREFERENCE_KEYS) or {"chosen_messages", "rejected_messages"} <= given:
        return _preference(row, given)
    if CORNELL in given:
        return "cornell line"
    if "non_preferred_output" in given:
        return "openai preference"
    if not given.isdisjoint(comparisons.REJECTED):
        return "rejected answer" if "messages" in given or pairs.keys(row) else None
    return _several_answers(row, given) or _talk(row, given) or _question(row, given)


def _several_answers(row: Record, given: set[str]) -> str | None:
    asked = not given.isdisjoint(pairs.ASKED)
    if asked and any(answers.is_list_of_answers(row.get(key)) for key in answers.LISTS):
        return "scored answers"
    if "responses" in given and asked:
        return "comparison"
    for name in ("saferlhf", "shp", "webgpt", "summaries"):
        if all(not given.isdisjoint(group) for group in LAYOUTS[name].needs):
            return name
    if "group" not in given and questions.has_choices(row):
        return "choices"
    return None


def _talk(row: Record, given: set[str]) -> str | None:
    if not given.isdisjoint(turns.SHAREGPT_KEYS):
        return "sharegpt"
    if "messages" in given:
        return _messages(row, given)
    if "chat" in given:
        return "moss"
    if not given.isdisjoint(TRANSCRIPT_KEYS):
        return "transcript"
    if not given.isdisjoint(("dialog", "dialogue")) or dialogues.is_said_in_turn(row.get("data")):
        return "dialogue"
    if trees.is_tree(row):
        return "tree"
    if trees.is_message(row):
        return TREE_MESSAGE
    if dialogues.is_said_in_turn(row.get("turns")):
        return "mt-bench"
    if "instances" in given and "instruction" in given:
        return "instances"
    return UTTERANCE if dialogues.is_line(row) else None


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
    if asked and (asked in ("prompt", "instruction") or "reference" in row):
        return "prompt text"
    if "text" in given:
        return "transcript" if isinstance(row["text"], str) and transcripts.is_transcript(row["text"]) else "text"
    return None
