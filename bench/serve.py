"""The server under 1, 8 and 32 users, against transformers answering the same questions one by one
for 8 users.

`python -m stages.deploy serve` runs as it is, in a folder of its own, with a Llama of 4 million
(random weights) as champion. Each user streams one answer after the other over the API, greedy, of
at most 48 tokens, for a given time. In the middle of the last run of 8 users another champion takes
over. The baseline is `model.generate` in this process, without HTTP, users in turn; it reads the
very prompts the server does. Both are measured in short turns, so that they see the same machine,
and the median of the turns' ratios counts.

    python -m bench.serve
    python -m bench.serve --seconds 60
"""

import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer

from bench.generate import MODEL
from stages import tokenizer as tokenizer_stage
from stages.common.core import chat, models
from stages.common.core.records import Record, message
from stages.common.release import registry
from stages.common.runtime import libraries, ranks
from stages.common.tracking import mlflow_store

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stages.common.tracking.mlflow_store import MlflowClient

ROOT = Path(__file__).parent.parent
NAME, LONGEST, TURNS = "bench", 48, 5
PARAMS = """
run: {name: bench}
promote: {name: bench, metric: none}
deploy: {canned: [hello], max_new_tokens: 64, requests_per_minute: 1000000, poll_seconds: 0.5}
"""


@dataclass
class Load:
    """What some users saw."""

    users: int
    seconds: float = 0.0
    tokens: int = 0
    answers: int = 0
    errors: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)

    def row(self) -> str:
        """Return the line of the table."""
        cuts = statistics.quantiles(self.first, n=20) if len(self.first) > 1 else [0.0] * 19
        return (
            f"{self.users:>5} {self.answers:>8} {self.tokens / self.seconds:>9.0f} {1000 * cuts[9]:>9.0f}"
            f" {1000 * cuts[18]:>9.0f} {len(self.errors):>7}  {self.versions}"
        )


def texts(count: int, seed: int = 1) -> list[str]:
    """Return texts of random words."""
    dice = random.Random(seed)
    words = ["".join(dice.choices("etaoinshrdlucmfwy", k=dice.randint(2, 9))) for _ in range(2_000)]
    return [" ".join(dice.choices(words, k=dice.randint(4, 24))) for _ in range(count)]


def question(number: int) -> list[Record]:
    """Return the conversation of that number."""
    return [message("user", QUESTIONS[number % len(QUESTIONS)])]


QUESTIONS = texts(512, seed=2)


def register(folder: Path, client: "MlflowClient", seed: int) -> registry.Version:
    """Register a model with random weights from `seed`."""
    from transformers import set_seed

    tokenizer = tokenizer_stage.with_template(tokenizer_stage.train(iter(texts(4_000)), 3_072), "chatml")
    set_seed(seed)
    models.save(models.build(MODEL, len(tokenizer), "bench"), tokenizer, folder / str(seed))
    tags = {"weights_sha256": models.weights_sha256(folder / str(seed)), "candidate": str(seed)}
    return registry.register(client, NAME, folder / str(seed), tags, "{}")


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run the server in `folder`, and give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "stages.deploy", "serve", "--port", str(port)]
    server = subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/readyz").raise_for_status()
                break
            except httpx.TransportError:
                if server.poll() is not None:
                    raise
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


async def ask(client: httpx.AsyncClient, number: int, load: Load) -> None:
    """Stream one answer and count it."""
    body = {
        "messages": [{key: turn[key] for key in ("role", "content")} for turn in question(number)],
        "temperature": 0,
        "max_tokens": LONGEST,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started, first, last = time.monotonic(), None, {}
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            reply.raise_for_status()
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    first = first or time.monotonic() - started
                    last = json.loads(line[6:])
        load.tokens += last["usage"]["completion_tokens"]
    except (httpx.HTTPError, KeyError, TypeError) as error:
        load.errors.append(repr(error))
        return
    load.answers += 1
    load.first.append(first or 0.0)
    version = last["system_fingerprint"].split("-")[1]
    load.versions[version] = load.versions.get(version, 0) + 1


async def under(url: str, users: int, seconds: float, middle: Any = None) -> Load:
    """Return what `users` saw in so many seconds; `middle` is called when half of them are over."""
    load, began = Load(users), time.monotonic()
    limits = httpx.Limits(max_connections=users)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def user(place: int) -> None:
            number = place * 1_000
            while time.monotonic() - began < seconds:
                await ask(client, number, load)
                number += 1

        async def swap() -> None:
            await asyncio.sleep(seconds / 2)
            await asyncio.to_thread(middle)

        await asyncio.gather(*(user(place) for place in range(users)), *([swap()] if middle else []))
    load.seconds = time.monotonic() - began
    return load


def one_by_one(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", seconds: float) -> float:
    """Return tokens a second of `model.generate`, 8 users in turn."""
    import torch

    stop, began, tokens, turn = chat.stops(tokenizer), time.monotonic(), 0, 0
    with torch.inference_mode():
        while time.monotonic() - began < seconds:
            prompt = chat.encode_prompt(tokenizer, question(turn % 8 * 1_000 + turn // 8))
            ids = torch.tensor([prompt], device=model.device)
            mask = torch.ones_like(ids)
            found = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=LONGEST,
                do_sample=False,
                eos_token_id=stop,
                pad_token_id=stop[0],
            )
            tokenizer.decode(found[0, len(prompt) :], skip_special_tokens=True)
            tokens, turn = tokens + found.shape[1] - len(prompt), turn + 1
    return tokens / (time.monotonic() - began)


def compared(url: str, folder: Path, seconds: float) -> tuple[list[float], list[float]]:
    """Return tokens a second of the baseline and of the server at 8 users, in turns of `seconds` /
    TURNS.
    """
    model, tokenizer = models.load(folder).to(ranks.device()).eval(), models.load_tokenizer(folder)
    alone, served = [], []
    for _ in range(TURNS):
        alone.append(one_by_one(model, tokenizer, seconds / TURNS))
        load = asyncio.run(under(url, 8, seconds / TURNS))
        served.append(load.tokens / load.seconds)
    return alone, served


def main(seconds: Annotated[float, typer.Option(help="of each measurement")] = 20.0) -> None:
    libraries.quiet()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "params.yaml").write_text(PARAMS, encoding="utf-8")
        os.chdir(folder)
        client = mlflow_store.client()
        versions = [register(folder, client, seed) for seed in (1, 2)]
        registry.point(client, registry.CHAMPION, versions[0])
        with serving(folder) as url:
            asyncio.run(under(url, 8, 2.0))  # warm
            loads = [asyncio.run(under(url, users, seconds)) for users in (1, 8, 32)]
            alone, served = compared(url, folder / "1", seconds)
            swap = partial(registry.point, client, registry.CHAMPION, versions[1])
            loads.append(asyncio.run(under(url, 8, seconds, swap)))
    print("users  answers  tokens/s  p50 ms    p95 ms     errors  answers by version")
    for load in loads:
        print(load.row())
    times = statistics.median(server / baseline for baseline, server in zip(alone, served, strict=True))
    print(f"8 users, in turns: one by one {_rounded(alone)} tokens/s, served {_rounded(served)}: {times:.1f} times")
    failed = [error for load in loads for error in load.errors]
    if failed or len(loads[-1].versions) != 2:
        raise SystemExit(f"errors: {failed[:3]}, versions of the swap: {loads[-1].versions}")


def _rounded(values: list[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


if __name__ == "__main__":
    typer.run(main)
