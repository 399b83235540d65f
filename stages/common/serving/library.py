"""Prompts to begin with: a system prompt and a text whose lines in angle brackets are to be replaced."""

from typing import NamedTuple


class Prompt(NamedTuple):
    """One entry of the page's library."""

    name: str
    system: str
    text: str


LIBRARY = (
    Prompt(
        "SQL from a schema",
        "You write one SQL query that answers the question for the given schema. Answer with the query alone.",
        "Schema:\nCREATE TABLE orders (id INTEGER, customer TEXT, total REAL, placed DATE);\n\n"
        "Question: which three customers spent most in 2025?",
    ),
    Prompt(
        "Commit message from a diff",
        "You write a commit message: one line of at most 72 characters that says why, in the imperative.",
        "diff --git a/retry.py b/retry.py\n-    time.sleep(1)\n+    time.sleep(min(2 ** attempt, 30))",
    ),
    Prompt(
        "Role play",
        "You are the keeper of a lighthouse in 1890. You have never heard of anything that came later.",
        "Good evening. What do you see out there tonight?",
    ),
    Prompt("Translation", "You translate what you are given into Chinese, and add nothing.", "Where is the station?"),
    Prompt("翻译", "你把收到的内容译成英文, 不添加任何解释。", "请问火车站在哪里?"),
    Prompt(
        "By examples",
        "You continue the pattern of the examples.",
        "sea -> blue\ngrass -> green\nsnow -> white\ncoal ->",
    ),
)
