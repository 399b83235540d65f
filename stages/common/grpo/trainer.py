"""TRL's GRPOTrainer as Lathe runs it: prompts are tokens, answers come from our decoder, and a
checkpoint holds what a resume needs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import chat
from stages.common.finetuning import merging
from stages.common.generation import generator, shares
from stages.common.generation.batch import Continuation
from stages.common.generation.sampling import Sampling
from stages.common.grpo.scored import ASKED, Scored
from stages.common.reward import checked
from stages.common.reward.checked import Asked, Reward
from stages.common.runtime import process, ranks
from stages.common.runtime.errors import StopRequested
from stages.common.runtime.progress import Progress
from stages.common.training import data_order, optimizer_state
from stages.common.training.resumable import Resumable

if TYPE_CHECKING:
    from stages.common.generation.engines.mirrored_policy import MirroredPolicy
    from stages.common.tracking.run import Run

BUFFER = "answers"
"""In a checkpoint: the answers that are still to be learnt from."""
TABLE_ROWS = 50
SEEDS = 1_000_003
"""Between the random numbers of one seed's steps and the next seed's."""


class Uncounted(Progress):
    """A short piece of work without a line of progress, done to its end."""

    def row(self, done: int) -> None:
        """Count one answer."""
        self.rows += 1


class Answering(merging.Merged, Resumable):
    """Mixin before TRL's GRPOTrainer."""

    headline = ("loss", "reward")
    if TYPE_CHECKING:
        temperature: float
        top_p: float
        num_iterations: int
        max_completion_length: int
        eval_dataset: Any
        _metrics: dict[str, dict[str, list[float]]]

    def __init__(
        self,
        *given: Any,
        scored: Scored,
        decode_batch_size: int,
        run: "Run",
        mirror: "MirroredPolicy | None" = None,
        **named: Any,
    ) -> None:
        super().__init__(*given, **named)
        self.scored, self.decode_batch_size, self.run, self.mirror = scored, decode_batch_size, run, mirror
        self.use_vllm = mirror is not None  # TRL then corrects for an engine's probabilities
        self.stops = chat.stops(self.processing_class)
        self.eos_token_ids = list(self.stops)

    def count_tokens(self, inputs: dict[str, Any]) -> int:
        """Return 0: answers are counted where they are made."""
        return 0

    def _get_train_sampler(self, *given: Any) -> Any:
        found = super()._get_train_sampler(*given)
        found.sampler = data_order.Redrawn(found.sampler)
        return found

    def _tokenize_prompts(self, prompts: list[list[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return prompts, None, {}

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *_: Any, **__: Any
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        """Return an answer to each prompt, with its end; of an engine's also the log-probabilities.

        Those of a group differ, and are the same whatever the number of processes.
        """
        number = self._step // (self.args.steps_per_generation * self.num_iterations)
        sampling = Sampling(temperature=self.temperature, top_p=self.top_p, seed=self.args.seed * SEEDS + number)
        found = self.answers(prompt_ids, sampling)
        ids = [tokens(one) for one in found]
        self.tokens_seen += sum(map(len, ids)) * self.args.world_size
        return ids, [one.log_probabilities for one in found] if self.use_vllm else None

    def answers(self, prompts: list[list[int]], sampling: Sampling) -> list[Continuation]:
        """Return the policy's answer to each prompt."""
        with self.whole() as policy:
            answering = merging.answering(policy, self.mirror)
            most, rows = self.max_completion_length, self.decode_batch_size
            found = decoded(answering, prompts, most, self.stops, sampling, rows, log_probabilities=self.use_vllm)
        if self.mirror is not None:
            self.mirror.rest()
        return found

    def whole(self) -> AbstractContextManager[Any]:
        """Return a context with the policy itself, its weights gathered where they are split among
        processes.
        """
        if self.is_deepspeed_enabled and self.accelerator.deepspeed_plugin.zero_stage == 3:
            from trl.models.utils import unwrap_model_for_generation

            return unwrap_model_for_generation(self.model_wrapped, self.accelerator)
        return nullcontext(self.accelerator.unwrap_model(self.model_wrapped))

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Answer the held-out prompts greedily; log what the rewards say, and a table.

        Raises StopRequested where an epoch is left before its end: it comes again after the resume.
        """
        state = self.state
        unfinished = state.global_step < state.max_steps and not float(state.epoch or 0).is_integer()
        if self.control.should_training_stop and unfinished:
            raise StopRequested
        rows = self.held_out()
        metrics = {f"eval_{name}": value for name, value in figures(rows, self.scored.rewards).items()}
        self._metrics["eval"].clear()
        self.log(metrics)
        if process.is_main_process():
            self.run.table(f"answers-{self.state.global_step:06d}", rows[:TABLE_ROWS])
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def held_out(self) -> list[dict[str, Any]]:
        """Return the held-out prompts in order, each with the policy's greedy answer, its length in
        tokens, whether it ended, and its rewards.
        """
        asked = [dict(one) for one in self.eval_dataset]
        with self.whole() as policy:
            answering = merging.answering(policy, self.mirror)
            found = greedy(answering, asked, self.max_completion_length, self.stops, self.decode_batch_size)
        if self.mirror is not None:
            self.mirror.rest()
        return answered(self.processing_class, asked, found, self.stops, self.scored)

    def release(self) -> None:
        """Let go of all models, the engine among them: what is left to do needs the memory."""
        super().release()
        self.ref_model: Any = None
        if self.mirror is not None:
            self.mirror.close()

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        kept = {"world": self.args.world_size, "answers": self._buffered_inputs if self._is_midway() else None}
        optimizer_state.save_state(kept, Path(output_dir), f"{BUFFER}-{self.args.process_index}")

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            self._step = self.state.global_step * self.args.gradient_accumulation_steps
            kept = optimizer_state.load_state(Path(checkpoint), f"{BUFFER}-0")
            if kept["world"] != self.args.world_size or kept["answers"] is None:  # others than those are made
                return
            mine = optimizer_state.load_state(Path(checkpoint), f"{BUFFER}-{self.args.process_index}")["answers"]
            self._buffered_inputs = [{name: value.to(self.args.device) for name, value in one.items()} for one in mine]

    def _is_midway(self) -> bool:
        """Whether answers that were made are still to be learnt from."""
        return bool(self._step % (self.args.steps_per_generation * self.num_iterations))


def decoded(
    answering: Any,
    prompts: list[list[int]],
    most: int,
    stops: Sequence[int],
    sampling: Sampling,
    batch_size: int,
    *,
    log_probabilities: bool = False,
) -> list[Continuation]:
    """Return the answer of a policy, or of an engine in its place, to each prompt."""
    found = generator.decode(
        answering,
        prompts,
        max_new_tokens=most,
        stop=stops,
        sampling=sampling,
        log_probabilities=log_probabilities,
        batch_size=batch_size,
        progress=Uncounted(len(prompts)),
    )
    return [one for (one,) in found]


def greedy(
    answering: Any, asked: Sequence[Mapping[str, Any]], most: int, stops: Sequence[int], batch_size: int
) -> list[list[int]]:
    """Return the greedy answer to each prompt of the data set as tokens, with its end; processes
    share the prompts.
    """

    def answered(mine: Iterator[slice]) -> Iterator[list[Continuation]]:
        for one in mine:
            prompts = [row["prompt"] for row in asked[one]]
            yield decoded(answering, prompts, most, stops, Sampling(), batch_size)

    return [tokens(one) for some in ranks.shared(shares.cut(len(asked), batch_size), answered) for one in some]


def tokens(one: Continuation) -> list[int]:
    """Return an answer's tokens with the end of turn it gave."""
    return [*one.tokens, *([] if one.stop is None else [one.stop])]


def answered(
    tokenizer: Any,
    prompts: Sequence[dict[str, Any]],
    answers: Sequence[Sequence[int]],
    stops: Sequence[int],
    scored: Scored,
) -> list[dict[str, Any]]:
    """Return prompts with their answers (tokens, with their end) as rows to be looked at and
    measured.
    """
    ended = [bool(ids) and ids[-1] in stops for ids in answers]
    said = [list(ids[:-1] if whole else ids) for ids, whole in zip(answers, ended, strict=True)]
    texts = [str(tokenizer.decode(ids, skip_special_tokens=True)) for ids in said]
    asked = [Asked(*(one[name] for name in ASKED)) for one in prompts]
    columns = scored.columns([one["prompt"] for one in prompts], said, texts, asked, [not one for one in ended])
    return [
        {
            "question": facts.question,
            "answer": text,
            "reference": facts.reference,
            "length": len(ids),
            "ended": whole,
            "reward": checked.total(scored.rewards, {name: values[at] for name, values in columns.items()}),
            **{f"reward/{name}": values[at] for name, values in columns.items()},
        }
        for at, (facts, text, ids, whole) in enumerate(zip(asked, texts, answers, ended, strict=True))
    ]


def figures(rows: Sequence[Mapping[str, Any]], rewards: Sequence[Reward]) -> dict[str, float]:
    """Return the means of `answered` rows; a reward that gave None does not count where it did."""
    names = ["reward", *(f"reward/{one.name}" for one in rewards), "length", "ended"]
    found = {name: [float(row[name]) for row in rows if row[name] is not None] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items() if values}
