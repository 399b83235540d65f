"""TRL's GRPOTrainer as Lathe runs it: prompts are tokens, answers come from our decoder, and a
checkpoint holds what a resume needs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import chat
from stages.common.finetuning import merging
from stages.common.generation.batch import Continuation
from stages.common.generation.sampling import Sampling
from stages.common.grpo import answers as grpo_answers
from stages.common.grpo.looks import Looks
from stages.common.runtime import process
from stages.common.runtime.errors import StopRequested
from stages.common.training import data_order, optimizer_state

if TYPE_CHECKING:
    from stages.common.generation.engines.mirrored_policy import MirroredPolicy
    from stages.common.grpo.scored import Scored
    from stages.common.tracking.run import Run

BUFFER = "answers"
"""In a checkpoint: the answers that are still to be learnt from."""
TABLE_ROWS = 50
SEEDS = 1_000_003
"""Between the random numbers of one seed's steps and the next seed's."""


class Answering(Looks, merging.Merged):
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
        scored: "Scored",
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
        ids = [grpo_answers.tokens(one) for one in found]
        self.tokens_seen += sum(map(len, ids)) * self.args.world_size
        return ids, [one.log_probabilities for one in found] if self.use_vllm else None

    def answers(self, prompts: list[list[int]], sampling: Sampling) -> list[Continuation]:
        """Return the policy's answer to each prompt."""
        with merging.whole(self) as policy:
            answering = merging.answering(policy, self.mirror)
            most, rows = self.max_completion_length, self.decode_batch_size
            told = self.use_vllm
            found = grpo_answers.decoded(answering, prompts, most, self.stops, sampling, rows, log_probabilities=told)
        if self.mirror is not None:
            self.mirror.rest()
        return found

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Answer the held-out prompts greedily; log what the rewards say, and a table.

        Raises StopRequested where an epoch is left before its end: it comes again after the resume.
        """
        state = self.state
        unfinished = state.global_step < state.max_steps and not float(state.epoch or 0).is_integer()
        unfinished &= not self.is_over(state)
        if self.control.should_training_stop and unfinished:
            raise StopRequested
        if state.global_step >= state.max_steps:
            self.look_now()
        rows = self.held_out()
        metrics = {f"eval_{name}": value for name, value in grpo_answers.figures(rows, self.scored.rewards).items()}
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
        with merging.whole(self) as policy:
            answering = merging.answering(policy, self.mirror)
            most, rows = self.max_completion_length, self.decode_batch_size
            found = grpo_answers.greedy(answering, asked, most, self.stops, rows)
        if self.mirror is not None:
            self.mirror.rest()
        return grpo_answers.answered(self.processing_class, asked, found, self.stops, self.scored)

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
