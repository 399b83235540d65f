"""Who says whether an answer is right: one rule for each group of questions, or a judge
endpoint.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stages.common.core import records
from stages.common.core.params import PARAMS_FILE, suggestion
from stages.common.evaluation.metrics import Answer
from stages.common.evaluation.question_prompts import said
from stages.common.ranking.llm_judge import Judge, JudgeParams
from stages.common.runtime import ranks
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.runtime.logs import log
from stages.common.text import graders
from stages.common.text.graders import Grader
from stages.common.text.thoughts import unfinished

OTHERS = "*"
INSTRUCTION = """You grade an assistant's answer to a question against a reference answer. It is correct when it says \
the same as the reference; other words, another language or more detail do not matter, a contradiction does. \
Reply with CORRECT or INCORRECT and nothing else."""
VERDICT = re.compile(r"\b(CORRECT|INCORRECT)\b")


@dataclass(frozen=True)
class Grading:
    """The grader of each group of questions (`*`: of all others; else `exact`), and the judge's
    endpoint.
    """

    graders: Mapping[str, Grader] = field(default_factory=dict)
    judge: JudgeParams = field(default_factory=JudgeParams)

    def of(self, group: str) -> Grader:
        """Return the grader of a group."""
        return self.graders.get(group, self.graders.get(OTHERS, "exact"))

    def check(self, questions: Sequence[records.Record]) -> None:
        """Raise ParamsError for a group that no question has, DataError for a reference that no
        answer can meet.
        """
        groups = sorted({row["group"] for row in questions})
        for name in sorted(set(self.graders) - {*groups, OTHERS}):
            what = f"'evaluate.grader.{name}': no question is of this group{suggestion(name, groups)}"
            raise ParamsError(f"{what}; there are: {', '.join(groups) or 'none'}", where=PARAMS_FILE)
        for row in questions:
            fault = graders.fault(self.of(row["group"]), row["reference"]) if row["reference"] is not None else ""
            if fault:
                what = f"the reference of {row['id']}, {row['reference']!r}, {fault}"
                remedy = f"mend it, or choose another grader: evaluate.grader.{row['group']}"
                raise DataError(what, where=row["source"], remedy=remedy)
        if any(self.of(group) == "judge" for group in groups) and not self.judge.model:
            what = "'evaluate.judge.model' is missing: a group has the grader 'judge'"
            raise ParamsError(what, where=PARAMS_FILE, remedy="name the judge's model")

    def grade(self, answers: Sequence[Answer], prompt: str) -> None:
        """Set `correct` of every answer: None where there is no reference to compare with."""
        asked: list[tuple[Answer, str]] = []
        for row in answers:
            text, grader = said(row["answer"], prompt), self.of(row["group"])
            if row["reference"] is None:
                row["correct"] = None
            elif grader == "judge" and text:
                asked.append((row, text))
            else:
                row["correct"] = grader != "judge" and graders.right(grader, text, row["reference"])
        if asked:
            self._ask(asked)
        if lost := sum(unfinished(row["answer"]) for row in answers):
            what = "%s of %s answers end within their thoughts and say nothing: raise evaluate.max_new_tokens"
            log.warning(what, f"{lost:,}", f"{len(answers):,}")

    def _ask(self, asked: Sequence[tuple[Answer, str]]) -> None:
        for (row, _), verdict in zip(asked, ranks.once(lambda: self._verdicts(asked)), strict=True):
            row["correct"] = verdict == "CORRECT"

    def _verdicts(self, asked: Sequence[tuple[Answer, str]]) -> list[str]:
        with Judge(self.judge, key="evaluate.judge") as endpoint:
            found = endpoint.each(endpoint.word, [(VERDICT, messages(row, text)) for row, text in asked])
            if endpoint.unreadable:
                log.warning("%s of %s replies of the judge name no verdict", endpoint.unreadable, len(asked))
            return found


def messages(row: Answer, text: str) -> list[dict[str, str]]:
    """Return the messages that ask whether `text` answers a question as its reference does."""
    parts = [f"Question:\n{row['question']}", f"Reference answer:\n{row['reference']}", f"Answer:\n{text}"]
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": "\n\n".join(parts)}]
