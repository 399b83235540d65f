"""A registry with two versions, made once, its champions, and an engine."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stages.common.release import registry
from stages.common.release.registry import Version
from stages.common.serving import app as serving
from stages.common.serving.drift.watch import Watch
from stages.common.serving.engine.champions import Champions
from stages.common.serving.engine.engine import Engine
from stages.common.serving.pages.inputs import Page
from stages.common.tracking import mlflow_store
from tests.support.registered import NAME, add_version
from tests.support.tiny import make_model, make_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stages.common.tracking.mlflow_store import MlflowClient


@dataclass
class Registered:
    """The folder of a registry, its client and its versions."""

    folder: Path
    client: "MlflowClient"
    versions: tuple[Version, Version]


@pytest.fixture(scope="package")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registered]:
    """A registry whose versions 1 and 2 have other weights; the working folder is its folder."""
    folder = tmp_path_factory.mktemp("registered")
    (folder / "params.yaml").write_text("run:\n  name: world\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client = mlflow_store.client()
        yield Registered(folder, client, (add_version(client, folder, 1), add_version(client, folder, 2)))


@pytest.fixture
def champions(registered: Registered) -> Iterator[Champions]:
    """Version 1 as champion, in memory."""
    registry.point(registered.client, registry.CHAMPION, registered.versions[0])
    made = Champions(NAME, rows=4, waiting=8, client=registered.client)
    yield made
    made.close()


@contextmanager
def served(
    champions: Champions,
    feedback: Path,
    token: str = "",
    per_minute: int = 100_000,
    origins: Sequence[str] = (),
    drift: Watch | None = None,
    **more: Any,
) -> Iterator[str]:
    """Serve the app over real HTTP, and give its address; `more` are further fields of the page."""
    fields = {"temperature": 0.0, "max_new_tokens": 64} | more
    page = Page("Be brief.", examples=("Hello?",), feedback=feedback, **fields)
    hosts = [*serving.LOOPBACK, "chat.example.org"]
    app = serving.build(champions, page, hosts, token, per_minute, origins, drift)
    server = serving.server(app, champions)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
            assert thread.is_alive()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def lasting(registered: Registered) -> Iterator[Champions]:
    """Version 1 in memory for a whole file of tests."""
    registry.point(registered.client, registry.CHAMPION, registered.versions[0])
    made = Champions(NAME, rows=8, waiting=16, client=registered.client)
    yield made
    made.close()


@pytest.fixture(scope="module")
def url(lasting: Champions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server without a token."""
    with served(lasting, tmp_path_factory.mktemp("feedback") / "page.jsonl") as address:
        yield address


@pytest.fixture(scope="module")
def tokenizer() -> "PreTrainedTokenizerBase":
    return make_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    return make_model(tokenizer, seed=3).eval()


@pytest.fixture
def engine(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> Iterator[Engine]:
    made = Engine(model, tokenizer, rows=4)
    yield made
    made.cancel_all()
    made.close()
    assert made.join(30)
