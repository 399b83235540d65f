"""What a client that gets no answer is told, in OpenAI's form: message, type, param and code."""

from typing import TYPE_CHECKING, Any

from stages.common.runtime.errors import StageError
from stages.common.runtime.logs import log
from stages.common.serving.engine.context import CONTEXT
from stages.common.serving.engine.remote import BackendError
from stages.common.serving.engine.requests import BusyError, ClosedError, UnansweredError

if TYPE_CHECKING:
    from fastapi import Response
    from pydantic import ValidationError

    from stages.common.serving.api.fields import Lenient

CLIENT_GONE = 499
KINDS = {429: "rate_limit_error", 500: "server_error", 502: "server_error", 503: "server_error"}
CODES = {
    "extra_forbidden": "unknown_parameter",
    "missing": "missing_required_parameter",
    "json_invalid": "invalid_json",
}
"""OpenAI's words for what pydantic found; other values of the wrong kind are `invalid_type`, or
`invalid_value`.
"""
LONG = "Input tokens exceed the configured limit of this model's context: "
"""By these words, OpenAI's own, clients know an error that a shorter conversation does not meet:
LangChain and LiteLLM look for them and not for the code.
"""


class Refusal(Exception):
    """A request that gets no answer, and OpenAI's way to say it."""

    def __init__(self, status: int, what: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(what)
        self.status, self.code, self.param = status, code, param


def invalid(error: "ValidationError", schema: "type[Lenient]") -> Refusal:
    """Return the refusal of a body that is no request of `schema`, by the first field that is
    wrong.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    what, kind, loc = first["msg"].removeprefix("Value error, "), first["type"], first["loc"]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".") or None
    code = CODES.get(kind, "invalid_type" if kind.endswith(("_type", "_parsing")) else "invalid_value")
    if what == "Field required":
        code = CODES["missing"]
    if kind == "extra_forbidden" and len(loc) == 1:
        what = schema.refusal_of(str(loc[0]))
        code = "unsupported_value" if loc[0] in schema.NEUTRAL else code
    return Refusal(400, f"{param}: {what}" if param else what, param=param, code=code)


def refused(error: Exception) -> "Response":
    """Return a failure in OpenAI's form; of one that is ours the client learns only that it
    happened.
    """
    from fastapi.responses import JSONResponse

    status, param, headers = 500, None, {}
    code: Any = None
    what = "the server failed; its log says why"
    if isinstance(error, Refusal):
        status, what, param, code = error.status, str(error), error.param, error.code
    elif isinstance(error, UnansweredError):
        status, what, param, code = 400, str(error), error.field, error.kind
        what = LONG + what if code == CONTEXT else what
    elif isinstance(error, BusyError):
        status, what, code, headers = 429, str(error), "rate_limit_exceeded", {"Retry-After": "2"}
    elif isinstance(error, ClosedError):
        status, what, headers = 503, "the server is ending", {"Retry-After": "5"}
    elif isinstance(error, BackendError):
        status, what, headers = 502, error.what, {"Retry-After": "5"}
    elif isinstance(error, StageError):
        status, what = 400, f"{error.what}; {error.remedy}" if error.remedy else error.what
    else:
        log.error("a request failed: %s", type(error).__name__)
        log.debug("traceback", exc_info=error)
    return JSONResponse({"error": body(status, what, param, code)}, status, headers)


def body(status: int, what: str, param: str | None = None, code: str | None = None) -> dict[str, str | None]:
    """Return what OpenAI says of an error."""
    return {"message": what, "type": KINDS.get(status, "invalid_request_error"), "param": param, "code": code}
