"""vLLM's engine in a process of its own, in the place of a model where answers are decoded.

It runs in another Python environment (`LATHE_VLLM_PYTHON`, or `.venv-vllm`): vLLM pins libraries
that this project has newer. Tokens and numbers go through a pipe, weights through a folder of
safetensors.
"""

import json
import os
import subprocess
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from stages.common.core import models
from stages.common.core.sparse import pattern
from stages.common.generation.batch import Continuation, Order
from stages.common.generation.engines import vllm_environment, vllm_worker
from stages.common.generation.sampling import mixed
from stages.common.runtime import errors, logs, process
from stages.common.runtime.progress import Progress

SECONDS_TO_END = 10.0


class Vllm:
    """The engine over the model in a folder; `context` is the most tokens a prompt and its answer
    may have.

    `rows` answers are under way at once. With `most_tokens`, the longest prompt with its answer,
    no more memory is taken than those need. `sleeps` asks for an engine that can `sleep`; what it
    can is its attribute of that name. Raises ParamsError without an environment that has vLLM or
    for a model with sparse attention, OutOfMemoryError, and DataError for a model that it cannot
    answer with.
    """

    def __init__(
        self,
        folder: Path,
        context: int | None,
        *,
        rows: int,
        dtype: str,
        most_tokens: int | None = None,
        sleeps: bool = False,
    ) -> None:
        pattern.refuse_sparse(models.load_config(folder), "vLLM")
        self.folder, self.context = folder, context
        self.log = logs.log_file(f"{os.environ.get('DVC_STAGE', Path(sys.argv[0]).stem)}.vllm")
        self.log.parent.mkdir(exist_ok=True)
        command = [str(vllm_environment.python()), "-I", vllm_worker.__file__, str(os.getpid())]
        with self.log.open("w", encoding="utf-8") as heard:
            self.worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=heard,
                encoding="utf-8",
                env=vllm_environment.engine_variables(dict(os.environ)),
            )
        self.end = weakref.finalize(self, kill, self.worker)
        cache_bytes = most_tokens and vllm_environment.cache_bytes(folder, dtype, rows, most_tokens)
        named = {"folder": str(folder), "dtype": dtype, "rows": rows, "sleeps": sleeps}
        self._send(named | {"most_tokens": most_tokens, "cache_bytes": cache_bytes})
        ready = self._hear()
        self.most_tokens, self.sleeps = int(ready["most_tokens"]), bool(ready["sleeps"])
        if sleeps and not self.sleeps:
            logs.log.info("vLLM has no sleep mode on this platform: its memory stays taken beside the training")
        logs.log.info("vLLM %s answers for %s; its log: %s", ready["ready"], folder, self.log)

    def close(self) -> None:
        """End the process; its memory is free then."""
        self.end()

    def load(self, folder: Path) -> None:
        """Answer with the weights in `folder` from now on; the model is the same but for them."""
        self._send({"do": "load", "folder": str(folder)})
        self._hear()

    def sleep(self) -> None:
        """Let go of the memory of weights and cache until the next `load`, without which nothing
        may be asked; an engine that cannot keeps it.
        """
        if self.sleeps:
            self._send({"do": "sleep"})
            self._hear()

    def answers(self, order: Order, progress: Progress) -> dict[int, Continuation]:
        """Return every answer of `order` by its number, as a `batch.Batch` does.

        Raises TryAgainError when the engine died, and as `generator.decode`.
        """
        wanted = requests(order)
        longest = max((len(order.prompts[prompt]) + count for prompt, count, _ in wanted), default=0)
        if longest > self.most_tokens:
            what = f"a prompt with its answer may have {longest} tokens, its memory holds {self.most_tokens}"
            raise errors.OutOfMemoryError(what, where=f"vLLM, {self.folder}", remedy="free memory, or ask for less")
        self._send(message(order, wanted))
        stops, found = set(order.stop), {}
        try:
            for _ in wanted:
                reply = self._hear()
                found[int(reply["answer"])] = continuation(reply, stops)
                progress.row(progress.rows + 1)
        except BaseException:
            self.close()  # what it would still say answers nothing that is asked later
            raise
        return found

    def _send(self, said: dict[str, Any]) -> None:
        assert self.worker.stdin
        try:
            self.worker.stdin.write(json.dumps(said) + "\n")
            self.worker.stdin.flush()
        except (BrokenPipeError, ValueError):
            self._ended()

    def _hear(self) -> dict[str, Any]:
        assert self.worker.stdout
        line = self.worker.stdout.readline()
        if not line.endswith("\n"):
            self._ended()
        reply: dict[str, Any] = json.loads(line)
        if "failed" in reply:
            self.close()
            raise refusal(reply, self.folder, self.log)
        return reply

    def _ended(self) -> NoReturn:
        """Say why there is nothing more to hear."""
        try:
            code = self.worker.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            code = None
        self.close()
        if process.stop_requested():  # what stops a stage may reach all its processes
            raise errors.StopRequested
        what = f"the vLLM engine died ({code if code is None or code >= 0 else f'signal {-code}'})"
        raise errors.TryAgainError(what, where=self.log, remedy="run it again")


def kill(worker: "subprocess.Popen[str]") -> None:
    """End the process at once: it has nothing to save."""
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        with suppress(BrokenPipeError):  # what was still to be written has no reader
            pipe and pipe.close()


def requests(order: Order) -> list[tuple[int, int, int]]:
    """Return prompt, longest answer and seed of every answer wanted, by its number.

    The seed is of the prompt's tokens and the number among its samples, not of its place.
    """
    count = len(order.prompts) * order.samples
    prompts, samples = np.divmod(np.arange(count, dtype=np.uint64), np.uint64(order.samples))
    seeds = mixed(mixed(order.keys()[prompts.astype(int)]) + samples) >> np.uint64(1)
    limits = [
        min(order.max_new_tokens, order.context - len(prompt)) if order.context else order.max_new_tokens
        for prompt in order.prompts
    ]
    places = prompts.astype(int).tolist()
    return [(place, limits[place], seed) for place, seed in zip(places, seeds.tolist(), strict=True)]


def message(order: Order, wanted: list[tuple[int, int, int]]) -> dict[str, Any]:
    """Return what the engine is asked. Raises ParamsError for log-probabilities that it cannot
    give: it counts them behind the filters.
    """
    how = order.sampling
    if order.log_probabilities and (how.top_p < 1 or how.top_k or how.repetition_penalty != 1):
        what = "vLLM gives no log-probabilities before top_p, top_k and repetition_penalty"
        raise errors.ParamsError(what, where="params.yaml", remedy="use run.engine: local")
    return {
        "do": "decode",
        "prompts": [list(prompt) for prompt in order.prompts],
        "requests": wanted,
        "stop": list(order.stop),
        "log_probabilities": order.log_probabilities,
        "sampling": {
            "temperature": how.temperature,
            "top_p": how.top_p,
            "top_k": how.top_k,
            "repetition_penalty": how.repetition_penalty,
        },
    }


def continuation(reply: dict[str, Any], stops: set[int]) -> Continuation:
    """Return an answer as the local decoder gives it: without the stop token that ended it."""
    tokens, scores = reply["tokens"], reply["log_probabilities"]
    if tokens and tokens[-1] in stops:
        return Continuation(tokens[:-1], tokens[-1], scores)
    return Continuation(tokens, None, scores)


def refusal(reply: dict[str, Any], folder: Path, log: Path) -> errors.StageError:
    """Return the error for what the engine says has failed."""
    what, place = str(reply["failed"])[:300], f"vLLM, {folder}"
    if reply["kind"] == "environment":
        return errors.ParamsError(what, where=vllm_environment.python(), remedy="`make vllm` makes that environment")
    if reply["kind"] == "memory":
        return errors.OutOfMemoryError(what, where=place, remedy="lower the batch size, or free memory")
    if reply["kind"] == "logits":
        what = "the model's logits are not numbers"
        return errors.DataError(what, where=place, remedy="use an earlier checkpoint")
    return errors.DataError(what, where=place, remedy=f"see {log}; run.engine: local answers without vLLM")
