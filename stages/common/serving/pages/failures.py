"""What a page says when something fails: what and what to do where we know it, else only that it failed."""

from collections.abc import Iterator
from contextlib import contextmanager

from stages.common.errors import StageError
from stages.common.journal import log


@contextmanager
def shown(what: str) -> Iterator[None]:
    """Turn what fails inside into a message on the page; `what` failed goes to the log. Raises gradio.Error."""
    import gradio

    try:
        yield
    except StageError as error:
        said = f"{error.what}; {error.remedy}" if error.remedy else error.what
        raise gradio.Error(said, print_exception=False) from error
    except Exception as error:  # the boundary: the page says no more than that it failed
        log.error("%s failed: %s", what, type(error).__name__)
        log.debug("traceback", exc_info=error)
        raise gradio.Error("the server failed; its log says why", print_exception=False) from error
