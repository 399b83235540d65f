"""What a page says when something fails: what and what to do where we know it, else only that it
failed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from stages.common.runtime.errors import StageError
from stages.common.runtime.logs import log


class Problem:
    """What failed, as text for the page; "" while nothing has."""

    text = ""


@contextmanager
def noted(what: str) -> Iterator[Problem]:
    """Give what fails inside as text instead of raising it; `what` failed goes to the log.

    For events outside Gradio's queue: of those, the page shows no error that is raised.
    """
    problem = Problem()
    try:
        yield problem
    except Exception as error:  # the boundary: what we do not know is only said to have failed
        problem.text = _said(error, what)


@contextmanager
def shown(what: str) -> Iterator[None]:
    """Turn what fails inside into a message on the page; `what` failed goes to the log. Raises
    gradio.Error.
    """
    import gradio

    try:
        yield
    except Exception as error:  # the boundary: what we do not know is only said to have failed
        raise gradio.Error(_said(error, what), print_exception=False) from error


def _said(error: Exception, what: str) -> str:
    if isinstance(error, StageError):
        return f"{error.what}; {error.remedy}" if error.remedy else error.what
    log.error("%s failed: %s", what, type(error).__name__)
    log.debug("traceback", exc_info=error)
    return "the server failed; its log says why"
