"""The Prefect server of this checkout: attach to the one that answers, start one if none does.

Where it is, and every other setting of it, stands in pyproject.toml under [tool.prefect];
PREFECT_API_URL overrides. In the foreground, for a Procfile or a container: python -m
flows.local.server
"""

import base64
import os
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from flows.local import background
from stages.common.runtime import environment as surroundings
from stages.common.runtime import locks
from stages.common.runtime.errors import ParamsError, TryAgainError

HOME = Path(".lathe/prefect")
LOG, RECORD = Path("logs/prefect-server.log"), HOME / "server.json"
START_SECONDS = 300.0


def api_url() -> str:
    """Return the API's address, ending in `/api`, as Prefect's own settings have it. Raises
    ParamsError in a checkout that is not ours to write.
    """
    try:
        HOME.mkdir(parents=True, exist_ok=True)  # or Prefect warns that it cannot make it
    except OSError as error:
        what = f"this checkout cannot be written: {error.strerror}"
        raise ParamsError(what, where=HOME.absolute(), remedy="work in a clone of your own") from error
    from prefect.settings import get_current_settings

    return str(get_current_settings().api.url).rstrip("/")


def ui_url(url: str) -> str:
    """Return the page that belongs to the API at `url`."""
    return url.removesuffix("/api")


def answers(url: str) -> bool:
    """Whether a Prefect server is at `url`. Raises TryAgainError when something else is, or one
    that is too busy to say so, ParamsError when it wants a password that it was not given.
    """
    import httpx

    try:
        health = httpx.get(f"{url}/health", timeout=5.0, trust_env=False, headers=_credentials())
        if health.status_code == httpx.codes.UNAUTHORIZED:
            remedy = "set PREFECT_API_AUTH_STRING=user:password"
            raise ParamsError("the Prefect server wants another password", where=ui_url(url), remedy=remedy)
        healthy = health.status_code == httpx.codes.OK and health.json() is True
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return False
    except httpx.TimeoutException as error:
        what = "what answers here has said nothing for 5 s; a Prefect server may be busy"
        raise TryAgainError(what, where=ui_url(url), remedy="try again") from error
    except (httpx.HTTPError, ValueError):
        healthy = False
    if not healthy:
        port = urlsplit(url).port or 80
        raise TryAgainError(
            "something that is no Prefect server answers here",
            where=ui_url(url),
            remedy=f"stop it, or take another port: PREFECT_API_URL=http://127.0.0.1:{port + 1}/api",
        )
    return True


def _credentials() -> dict[str, str]:
    given = os.environ.get("PREFECT_API_AUTH_STRING")
    return {"Authorization": f"Basic {base64.b64encode(given.encode()).decode()}"} if given else {}


def environment(url: str) -> dict[str, str]:
    """Return the environment of a server at `url`: its own page is the only one that may read its
    API.
    """
    host, port = address(url)
    return {
        **surroundings.complete(dict(os.environ)),
        "PREFECT_HOME": str(HOME.absolute()),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ui_url(url),
        "PREFECT_UI_API_URL": url,
    }


def address(url: str) -> tuple[str, int]:
    """Return host and port of `url`."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


def ensure() -> str:
    """Return the address of a healthy server, started in the background if there was none; it stays
    after the flow.

    Raises TryAgainError when the address is on another machine and nothing answers, is taken, or
    the start fails.
    """
    url = api_url()
    if answers(url):
        return url
    if address(url)[0] not in surroundings.LOOPBACK:
        raise TryAgainError("no Prefect server answers", where=url, remedy="start it there, or unset PREFECT_API_URL")
    with locks.waiting(HOME / "start.lock"):  # two flows that start at once share one server
        if not answers(url):
            _start(url)
    return url


def _start(url: str) -> None:
    print(f"lathe: starting the Prefect server, once ({LOG})", end="", file=sys.stderr, flush=True)
    started = time.monotonic()
    process = background.start(command(url), environment(url), LOG, RECORD)
    while not answers(url):
        if process.poll() is not None or time.monotonic() - started > START_SECONDS:
            print(file=sys.stderr)
            background.end(RECORD)
            raise TryAgainError(f"the Prefect server did not start: {background.last_line(LOG)}", where=LOG)
        print(".", end="", file=sys.stderr, flush=True)
        time.sleep(1)
    print(f" {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def command(url: str) -> list[str]:
    """Return the command of a server at `url`: what `prefect server start` runs, behind the door
    that it lacks.
    """
    host, port = address(url)
    options = ["--host", host, "--port", str(port), "--log-level", "warning", "--no-proxy-headers"]
    return [sys.executable, "-m", "uvicorn", "--factory", "flows.local.guarded_server:app", *options]


def main() -> None:
    """Become the server."""
    url = api_url()
    os.execve(sys.executable, command(url), environment(url))


if __name__ == "__main__":
    main()
