"""Expectations of our own, by which suites read as what they mean. Great Expectations knows them
once this is imported.

All look at one column: the pages of an expectation of two name its values in an order that differs
from run to run. It takes seconds to import: import it late.
"""

from functools import cache

from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.core import ExpectColumnValuesToBeNull
from great_expectations.expectations.expectation import ColumnMapExpectation
from great_expectations.expectations.metrics.map_metric_provider import (
    ColumnMapMetricProvider,
    column_condition_partial,
)
from pandas import Series

from stages.common.core.records import message
from stages.common.text import record_checks


class RolesTakeTurns(ColumnMapMetricProvider):
    """The metric of `expect_roles_to_take_turns`."""

    condition_metric_name = "column_values.roles_take_turns"
    condition_value_keys = ("last",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: Series, last: list[str], **_: object) -> Series:
        return column.map(lambda roles: take_turns(roles) and roles.split()[-1] in last)


class RanksRankResponses(ColumnMapMetricProvider):
    """The metric of `expect_ranks_to_rank_responses`."""

    condition_metric_name = "column_values.ranks_rank_responses"

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: Series, **_: object) -> Series:
        return column.map(rank_all)


class ExpectRolesToTakeTurns(ColumnMapExpectation):
    """The system comes first if at all, user and assistant take turns, tools answer a call, and one
    of `last` ends.
    """

    map_metric = "column_values.roles_take_turns"
    success_keys = ("last", "mostly")
    args_keys = ("column", "last")
    last: list[str]


class ExpectRanksToRankResponses(ColumnMapExpectation):
    """Every answer has a rank: a whole number from 1, the best, to the number of answers; somebody
    is first.

    Both ways to count after a tie pass, 1 2 2 3 and 1 2 2 4.
    """

    map_metric = "column_values.ranks_rank_responses"


class ExpectColumnsOfTheShape(ExpectColumnValuesToBeNull):
    """A file has the columns of its shape, with their types; the column tells the difference."""


class ExpectNoTestQuestion(ExpectColumnValuesToBeNull):
    """A record holds no test question; the column names the one it does hold."""


class ExpectNoPersonalData(ExpectColumnValuesToBeNull):
    """A record holds no address, number or key of a person; the column counts them by kind."""


class ExpectAnswersInTheLanguageAsked(ExpectColumnValuesToBeNull):
    """Question and answer are in one language; the column names the two."""


class ExpectIdsToStandOnce(ExpectColumnValuesToBeNull):
    """An id stands once in its shape; the column names the split where it stood before."""


class ExpectCopiesToFollowTheirOriginal(ExpectColumnValuesToBeNull):
    """A copy that the mixture made stands in the split of its original and says the same; the
    column tells what not.
    """


class ExpectRecordsToStandOnce(ExpectColumnValuesToBeNull):
    """A content stands once in its split; the column names the record before."""


class ExpectPromptsToStandInOneSplit(ExpectColumnValuesToBeNull):
    """A prompt, or a document's text, stands in one split of its shape; the column names a record
    of the other.
    """


class ExpectPromptsToServeOneStage(ExpectColumnValuesToBeNull):
    """A prompt stands in one of the shapes that are to stay apart; the column names the record of
    the other.
    """


class ExpectOneAnswerToAQuestion(ExpectColumnValuesToBeNull):
    """The same question has the same answer; the column names the first record that answers it
    otherwise.
    """


class ExpectOneLabelToAnAnswer(ExpectColumnValuesToBeNull):
    """The same answer to the same question has the same label; the column names the first record
    that labels it otherwise.
    """


@cache
def take_turns(roles: str) -> bool:
    """Whether the roles of a record's turns are in order, and there is a turn at all."""
    turns = [
        message("assistant", "", tool_calls=[{}]) if role == "call" else message(role, "") for role in roles.split()
    ]
    return bool(turns) and record_checks.in_order(turns)


def rank_all(ranks: str) -> bool:
    """Whether `1 2 2 of 3` ranks three answers."""
    words, _, number = ranks.partition(" of ")
    found = [int(word) if word.isdecimal() else 0 for word in words.split()]
    return len(found) == int(number) and min(found, default=0) == 1 and max(found) <= len(found)
