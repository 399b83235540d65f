"""What vLLM is asked and how its words are taken, worked by hand; no engine runs."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stages.common.generation.batch import Continuation, Order
from stages.common.generation.engines import vllm_process, vllm_worker
from stages.common.generation.sampling import Sampling
from stages.common.runtime.errors import DataError, OutOfMemoryError, ParamsError, StageError
from tests.support.vllm import save

PROMPTS = [[5, 6, 7], [8], [9] * 12]


def order(prompts: list[list[int]] = PROMPTS, context: int | None = 16, samples: int = 2, **sampling: float) -> Order:
    return Order(prompts, context, 8, [3], Sampling(**{"temperature": 1.0} | sampling), samples, False)  # type: ignore[arg-type]


def test_a_request_has_its_prompt_its_room_in_the_context_and_a_seed() -> None:
    wanted = vllm_process.requests(order())
    assert [(prompt, count) for prompt, count, _ in wanted] == [(0, 8), (0, 8), (1, 8), (1, 8), (2, 4), (2, 4)]
    assert [count for _, count, _ in vllm_process.requests(order(context=None))] == [8] * 6
    seeds = [seed for _, _, seed in wanted]
    assert len(set(seeds)) == 6 and all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_is_of_the_prompt_and_its_sample_not_of_their_place() -> None:
    def seeds(some: Order) -> dict[tuple[int, ...], list[int]]:
        found: dict[tuple[int, ...], list[int]] = {}
        for prompt, _, seed in vllm_process.requests(some):
            found.setdefault(tuple(some.prompts[prompt]), []).append(seed)
        return found

    assert seeds(order()) == seeds(order(PROMPTS[::-1]))
    fewer = seeds(order(PROMPTS[:1], samples=1))
    assert fewer[5, 6, 7] == seeds(order())[5, 6, 7][:1]
    assert seeds(order(seed=1))[5, 6, 7] != seeds(order())[5, 6, 7]
    twice = seeds(order([[8], [8]], samples=1))[(8,)]
    assert len(set(twice)) == 2


def test_log_probabilities_behind_a_filter_are_refused() -> None:
    plain = Order(PROMPTS, 16, 8, [3], Sampling(temperature=0.7), 1, True)
    asked = vllm_process.message(plain, vllm_process.requests(plain))
    assert (asked["prompts"], asked["stop"], asked["log_probabilities"]) == (PROMPTS, [3], True)
    assert asked["sampling"] == {"temperature": 0.7, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
    for sampling in (Sampling(1.0, top_p=0.9), Sampling(1.0, top_k=5), Sampling(repetition_penalty=1.1)):
        with pytest.raises(ParamsError, match="no log-probabilities"):
            vllm_process.message(Order(PROMPTS, 16, 8, [3], sampling, 1, True), [])


def test_an_answer_is_without_the_stop_token_that_ended_it() -> None:
    reply = {"tokens": [7, 3], "log_probabilities": [-0.5, -0.25]}
    assert vllm_process.continuation(reply, {3}) == Continuation([7], 3, [-0.5, -0.25])
    assert vllm_process.continuation(reply, {4}) == Continuation([7, 3], None, [-0.5, -0.25])
    assert vllm_process.continuation({"tokens": [3], "log_probabilities": []}, {3}) == Continuation([], 3)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ModuleNotFoundError("No module named 'vllm'"), ParamsError),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), OutOfMemoryError),
        (ValueError("No available memory for the cache blocks"), OutOfMemoryError),
        (RuntimeError("NaNs detected in logits: {'0': 3}"), DataError),
        (RuntimeError("Unsupported CPU attention configuration: head_dim=16"), DataError),
    ],
)
def test_what_fails_in_the_engine_is_an_error_of_its_kind(
    error: Exception, kind: type[StageError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATHE_VLLM_PYTHON", sys.executable)
    refused = vllm_process.refusal(vllm_worker.failure(error), Path("m"), Path("logs/x.log"))
    assert type(refused) is kind and refused.remedy


def test_an_environment_without_vllm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATHE_VLLM_PYTHON", sys.executable)
    with pytest.raises(ParamsError, match="No module named 'vllm'"):
        vllm_process.Vllm(save(tmp_path / "model"), 256, rows=2, dtype="float32")
    (log,) = (tmp_path / "logs").iterdir()
    assert "ModuleNotFoundError" in log.read_text()


class Platform:
    """vLLM's `current_platform`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def is_cpu(self) -> bool:
        return self.kind == "cpu"

    def is_sleep_mode_available(self) -> bool:
        return self.kind == "cuda"


@pytest.mark.parametrize(
    ("kind", "asked", "sleeps"), [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)]
)
def test_an_engine_can_sleep_where_it_is_asked_to_and_the_platform_has_it(
    kind: str, asked: bool, sleeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=lambda **named: named))
    monkeypatch.setitem(sys.modules, "vllm.platforms", SimpleNamespace(current_platform=Platform(kind)))
    order = {"folder": "m", "dtype": "float32", "rows": 2, "most_tokens": 8, "cache_bytes": 4096, "sleeps": asked}
    with torch._dynamo.config.patch(disable=False):  # which it sets on a CPU
        started = vllm_worker.start(order)
    assert started["enable_sleep_mode"] is sleeps and started["kv_cache_memory_bytes"] == 4096


class Sleeper:
    """What a sleeping vLLM engine is asked; `heard` has it in order."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.asleep = False
        self.llm_engine = SimpleNamespace(is_sleeping=lambda: self.asleep)

    def sleep(self, level: int) -> None:
        self.asleep = True
        self.heard.append(("sleep", level))

    def wake_up(self, tags: list[str]) -> None:
        self.asleep = "kv_cache" not in tags
        self.heard.append(("wake_up", tags))

    def collective_rpc(self, name: str, kwargs: dict[str, str]) -> None:
        self.heard.append((name, kwargs["weights_path"]))

    def reset_prefix_cache(self) -> None:
        self.heard.append("reset")


def test_a_sleeping_engine_gets_memory_then_weights_then_its_cache() -> None:
    engine = Sleeper()
    load, sleep = ({"do": name, "folder": "new"} for name in ("load", "sleep"))
    assert [*vllm_worker.load(engine, load), *vllm_worker.sleep(engine, sleep)] == [{"loaded": "new"}, {"asleep": True}]
    awake = [("reload_weights", "new"), "reset"]
    assert engine.heard == [*awake, ("sleep", 2)]
    list(vllm_worker.load(engine, load))
    assert engine.heard[3:] == [("wake_up", ["weights"]), awake[0], ("wake_up", ["kv_cache"]), awake[1]]
