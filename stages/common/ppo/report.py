"""What PPO did: the kept policy of the highest held-out reward, against the one it started from;
curve and figures.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import chat, models
from stages.common.core.statistics import bootstrap_mean
from stages.common.generation import shares
from stages.common.generation.engines import choice
from stages.common.monitor import outcome
from stages.common.reward import scoring
from stages.common.runtime import logs
from stages.common.runtime.errors import DataError
from stages.common.text import parquet_writer
from stages.common.training import kept_models

if TYPE_CHECKING:
    from stages.common.ppo.trainer import Updates

COLUMNS = (
    *("step", "reward", "reward_q05", "reward_q50", "reward_q95", "kl", "kl_k1", "kl_coefficient", "entropy", "length"),
    *("ended", "repetition", "explained_variance", "policy_loss", "value_loss", "clip_fraction", "value_clip_fraction"),
)
Row = dict[str, Any]


def publish(
    trainer: "Updates", kept: list[Path], *, start: Path, reward: Path, out: Path, curve: Path, report: Path
) -> None:
    """Copy the best kept policy to `out` and write curve, report and figures. Raises DataError as
    `pick` does.
    """
    history, settings, run = trainer.state.log_history, trainer.setup.settings, trainer.setup.run
    epochs = measured(history, kept)
    name, best = chosen(trainer, epochs, kept, start)
    rewards = score_greedy([start, best], reward, trainer)
    if not trainer.args.should_save:
        return
    kept_models.copy_model(best, out)
    write_curve(history, curve)
    watched = outcome.facts(trainer)
    stopped = outcome.stopped(trainer) or exploded(history, settings.kl_stop)
    facts = compare(*rewards) | {
        "best": name,
        "epochs": epochs,
        "stopped": stopped,
        **watched,
        "weights_sha256": models.weights_sha256(out),
    }
    parquet_writer.write_json(report, facts)
    run.figure("reward-against-kl", figure(history))
    if watched:
        run.figure("watched", outcome.figure(history))
    run.metrics({f"held_out/{name}": value for name, value in facts.items() if isinstance(value, float)})
    if stopped:
        logs.log.warning("%s; %s is what comes out", stopped, name)
    lead, low, high = facts["lead"]
    kl = next((f", KL {row['kl']:.1f} nats" for row in epochs if row["epoch"] == name), f", of {name}")
    logs.report(
        f"held-out reward {facts['start']:.2f} -> {facts['reward']:.2f}: {lead:+.2f} [{low:+.2f}, {high:+.2f}]{kl}",
        compared(facts, trainer.state.global_step),
    )


def compared(facts: Row, steps: int) -> dict[str, float | None]:
    """Return what people compare of a training: reward before and after, what was measured of the
    policy that comes out.
    """
    kept: Row = next((row for row in facts["epochs"] if row["epoch"] == facts["best"]), {})
    lead, low, high = facts["lead"]
    told = {"reward": facts["reward"], "start": facts["start"], "lead": lead, "lead/low": low, "lead/high": high}
    return told | {name: kept.get(name) for name in ("kl", "kl_k1", "length", "ended", "repetition")} | {"steps": steps}


def chosen(trainer: "Updates", epochs: list[Row], kept: list[Path], start: Path) -> tuple[str, Path]:
    """Return name and folder of the policy that comes out: the one before a sign that ended the
    training, else that of `pick`.
    """
    found = outcome.before_the_sign(trainer, start)
    if found is None:
        best = kept[pick(epochs, trainer.state.log_history, trainer.setup.settings.kl_stop)]
        return best.name, best
    return found


def measured(history: list[Row], kept: list[Path]) -> list[Row]:
    """Return what was measured of each kept policy, in order."""
    rows = [row for row in history if "eval_reward" in row]
    names = ("reward", "kl", "kl_k1", "length", "ended", "repetition")
    return [
        {"epoch": folder.name} | {name: row[f"eval_{name}"] for name in names}
        for folder, row in zip(kept, rows, strict=False)
    ]


def pick(epochs: list[Row], history: list[Row], limit: float) -> int:
    """Return the index of the policy of the highest reward within the KL limit. Raises DataError
    when there is none.
    """
    within = [index for index, row in enumerate(epochs) if row["kl_k1"] <= limit]
    if not within:
        what = exploded(history, limit) or f"KL is beyond {limit} nats a sequence in every kept policy"
        raise DataError(
            f"{what}, before any policy was kept" if not epochs else what,
            where="ppo",
            remedy="lower ppo.training.learning_rate or raise ppo.kl_coefficient",
        )
    return max(within, key=lambda index: (epochs[index]["reward"], -index))


def exploded(history: list[Row], limit: float) -> str:
    """Return why training stopped before its end, or nothing."""
    for row in history:
        if row.get("kl_k1", 0.0) > limit:
            return f"KL to the starting policy reached {row['kl_k1']:.1f} nats a sequence at step {row['step']}"
    return ""


def score_greedy(folders: list[Path], reward: Path, trainer: "Updates") -> list[list[float]]:
    """Return of each policy the score of its greedy answer to each held-out prompt; the processes
    share these.

    One model is held at a time: the trainer's are let go of first, then each policy, before the
    reward model comes.
    """
    tokenizer, settings, prompts = trainer.processing_class, trainer.setup.settings, trainer.setup.held_out
    payment = trainer.setup.collector.payment
    trainer.release()
    written = [
        shares.generate(
            choice.load(folder, settings.rollout_batch_size),
            prompts,
            max_new_tokens=settings.max_new_tokens,
            stop=chat.stops(tokenizer),
            batch_size=settings.rollout_batch_size,
        )
        for folder in folders
    ]
    end, judge = chat.end_of_turn(tokenizer), scoring.load(reward, std_penalty=settings.heads_std_penalty)
    rows = [
        [[*prompt, *scoring.said(tokenizer, text), end] for prompt, text in zip(prompts, answers, strict=True)]
        for answers in written
    ]
    scores = [scoring.score_rows(judge, some, settings.rollout_batch_size, shared=True) for some in rows]
    if not payment.functions:
        return scores
    return [payment.paid(tokenizer, prompts, answers, some) for answers, some in zip(written, scores, strict=True)]


def compare(start: list[float], now: list[float]) -> Row:
    """Return mean greedy reward before and after, and the lead with its 95 % interval, paired by
    prompt.
    """
    lead = [after - before for before, after in zip(start, now, strict=True)]
    mean = [sum(values) / len(values) for values in (start, now, lead)]
    found = {"prompts": len(lead), "start": mean[0], "reward": mean[1]}
    return {name: rounded(value) for name, value in found.items()} | {
        "lead": [rounded(value) for value in (mean[2], *bootstrap_mean(lead))]
    }


def rounded(value: float) -> float:
    """Return six digits: what is written is the same on machines that round sums differently."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def write_curve(history: list[Row], path: Path) -> None:
    """Write a row a rollout as CSV, for `dvc plots`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [[f"{row.get(name, ''):.6g}" for name in COLUMNS] for row in history if "kl_k1" in row and "loss" in row]
    path.write_text("\n".join(",".join(row) for row in [list(COLUMNS), *rows]) + "\n", encoding="utf-8")


def figure(history: list[Row]) -> Any:
    """Return reward by step and reward against KL as a matplotlib figure."""
    from matplotlib.figure import Figure

    rows = [row for row in history if "kl_k1" in row and "loss" in row]
    held_out = [row for row in history if "eval_reward" in row]
    plot = Figure(figsize=(10, 4), layout="constrained")
    left, right = plot.subplots(1, 2)
    left.plot([row["step"] for row in rows], [row["reward"] for row in rows], label="training prompts")
    band = [[row[f"reward_q{share}"] for row in rows] for share in ("05", "95")]
    left.fill_between([row["step"] for row in rows], *band, alpha=0.15, label="5 to 95 % of answers")
    left.plot([row["step"] for row in held_out], [row["eval_reward"] for row in held_out], "o-", label="held out")
    left.set(xlabel="step", ylabel="reward", title="reward")
    left.legend()
    right.plot([row["kl"] for row in rows], [row["reward"] for row in rows], ".-", label="training prompts")
    right.plot([row["eval_kl"] for row in held_out], [row["eval_reward"] for row in held_out], "o-", label="held out")
    right.set(xlabel="KL to the starting policy, nats a sequence", ylabel="reward", title="reward against KL")
    right.legend()
    return plot
