"""Try what the literature claims of this recipe: each file of `experiments/`, or those that are
named; the results go into docs/experiments.md.

Example: python -m flows.experiments d_epochs h_dpo_near_ppo
A stopped call goes on where it was: finished stages and measured runs are kept in
.lathe/experiments, which may be deleted.
"""

from datetime import UTC, datetime
from typing import Annotated

import typer

from flows.experiments import page, plan, runs, verdicts
from flows.experiments.page import Tried
from stages.common.runtime import logs, process
from stages.common.runtime.logs import log

Names = Annotated[list[str] | None, typer.Argument(help="files of experiments/ without .py; none: all")]
List = Annotated[bool, typer.Option("--list", help="print each with its claim and runs, and run nothing")]


def main(names: Names = None, listed: List = False) -> None:
    """Run experiments and write their page."""
    chosen = {name: plan.load(name) for name in names or plan.names()}
    if listed:
        for name, experiment in chosen.items():
            count = len(experiment.arms) * len(experiment.seeds)
            print(f"{name}: {experiment.claim} ({count} runs)")
        return
    commit = runs.check_out()
    for number, (name, experiment) in enumerate(chosen.items(), 1):
        log.info("experiment %s of %s: %s", number, len(chosen), name)
        found = verdicts.results(experiment, runs.measured(name, experiment, commit))
        log.info("%s: %s: %s", name, experiment.claim, verdicts.whole(found))
    tried = [known(name) for name in plan.names()]
    page.write(tried, f"Last run of the command: {datetime.now(UTC):%Y-%m-%d}, commit {commit[:10]}.")
    done = sum(bool(one.results) for one in tried)
    logs.report(f"{done} of {len(tried)} experiments have a verdict: {page.PAGE}")


def known(name: str) -> Tried:
    """Return an experiment with what is kept of it; without results where a run is lacking."""
    experiment = plan.load(name)
    measured = dict(runs.kept(name, experiment))
    whole = len(measured) == len(experiment.arms) * len(experiment.seeds)
    return Tried(name, experiment, verdicts.results(experiment, measured) if whole else [], measured)


if __name__ == "__main__":
    process.run("experiments", main, again="python -m flows.experiments")
