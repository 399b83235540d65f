"""Over many epochs of SFT the validation loss turns up while the reward model likes the answers
ever more.
"""

from pathlib import Path

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured, Values

EPOCHS = 16


def measure(folder: Path) -> Measured:
    """Return validation loss and reward by epoch, and at which epoch each is best."""
    loss = measures.column(folder, "select_sft.csv", "epoch", "eval_loss")
    reward = measures.column(folder, "select_sft.csv", "epoch", "reward")
    return {"loss": loss, "reward": reward, "rise": {measures.ONE: loss[str(EPOCHS)] - min(loss.values())}} | {
        "turn": where(loss, min(loss.values())),
        "best": where(reward, max(reward.values())),
    }


def where(curve: Values, value: float) -> Values:
    """Return the first epoch at which a curve has a value."""
    return {measures.ONE: float(next(epoch for epoch, found in curve.items() if found == value))}


EXPERIMENT = Experiment(
    claim="After SFT's validation loss has turned up, the reward of its answers still rises.",
    source="Ouyang et al. 2022, InstructGPT, section 3.5",
    arms={"run": Arm({"sft.training.num_train_epochs": EPOCHS, "sft.dropout": 0.2})},
    until=("select_sft",),
    measure=measure,
    tests=(
        Contrast("the loss at the end against its lowest", ("run", "rise")),
        Contrast("the epoch of the best reward against that of the lowest loss", ("run", "best"), ("run", "turn")),
    ),
    curves=("loss", "reward"),
    curve_axis="epoch",
)
