"""One more round of RLHF: its two lines in dvc.yaml, then the pipeline; pauses where people have to
rank.

Command: python -m flows.rounds [--count 2] [--add-only]
"""

import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import typer
from prefect import flow, get_run_logger, runtime
from prefect.flow_runs import pause_flow_run
from pydantic import Field
from ruamel.yaml.comments import CommentedMap

from flows import checkout
from flows.cli import summary
from flows.local import liveness, server
from flows.repro import StageFailed
from flows.train import within
from stages.common.core import params
from stages.common.runtime import environment, errors
from stages.common.runtime.errors import ParamsError, StageError

PIPELINE = Path("dvc.yaml")
PAUSE_SECONDS = 7 * 24 * 3600
ROUND = "{policy: models/ppo/%(last)s, earlier: data/pools/%(last)s, start: models/ppo/%(last)s}"
CANDIDATE = "{model: models/ppo/%(name)s, prompt: chat, before: ppo_%(last)s}"


class Added(NamedTuple):
    """The pipeline's text with one round more, and that round's name."""

    text: str
    name: str


def add(text: str, pipeline: CommentedMap) -> Added:
    """Return the pipeline with one round more, all else as it stands; the round begins where the
    last one ended.

    Raises ParamsError where dvc.yaml has no list of rounds r1, r2, … or of candidates.
    """
    blocks = {name: block for item in pipeline.get("vars", []) for name, block in item.items()}
    for name in ("rounds", "candidates"):
        if not isinstance(blocks.get(name), CommentedMap) or not blocks[name]:
            raise ParamsError(f"no list of {name} under vars", where=PIPELINE, remedy=f"git checkout {PIPELINE}")
    names = list(blocks["rounds"])
    if names != [f"r{number}" for number in range(1, len(names) + 1)]:
        raise ParamsError(f"rounds are {', '.join(names)}, not r1, r2, …", where=PIPELINE, remedy="rename them")
    facts = {"last": names[-1], "name": f"r{len(names) + 1}"}
    lines = text.splitlines(keepends=True)
    new = ((blocks["rounds"], facts["name"], ROUND), (blocks["candidates"], f"ppo_{facts['name']}", CANDIDATE))
    for block, key, value in sorted(new, key=lambda one: -_last_line(one[0])):
        after = _last_line(block)
        indent = " " * (len(lines[after]) - len(lines[after].lstrip()))
        lines.insert(after + 1, f"{indent}{key}: {value % facts}\n")
    return Added("".join(lines), facts["name"])


def _last_line(block: CommentedMap) -> int:
    """Return the line of a block's last entry, which takes one line."""
    return int(block.lc.key(next(reversed(block)))[0])


def named() -> str:
    """Return what a run is called."""
    count = (runtime.flow_run.parameters or {}).get("count", 1)
    return f"{count} round{'s' if count > 1 else ''} more at {checkout.commit()}"


@flow(name="rounds", flow_run_name=named, persist_result=False)
def rounds(count: Annotated[int, Field(ge=1, le=100)] = 1) -> list[dict[str, Any]]:
    """Add `count` rounds to dvc.yaml, one after the other, and run each to the deployed champion;
    return the outcomes.

    Where people rank, it pauses until the run is resumed in Prefect's UI. Raises StageFailed as
    `train` does.

    Args:
        count: Rounds to add (1 to 100).
    """
    outcomes: list[dict[str, Any]] = []
    with liveness.held(str(runtime.flow_run.id)):
        for _ in range(count):
            name = write()
            if first_annotator() == "human":
                wait_for_people(name)
            outcomes = cast(list[dict[str, Any]], within())
    return outcomes


def write() -> str:
    """Add a round to dvc.yaml and return its name."""
    added = add(PIPELINE.read_text(encoding="utf-8"), params.read_yaml(PIPELINE))
    temporary = PIPELINE.with_suffix(".yaml.writing")
    temporary.write_text(added.text, encoding="utf-8")
    temporary.rename(PIPELINE)
    return added.name


def first_annotator() -> str:
    """Return who ranks. Raises ParamsError when params.yaml does not say."""
    annotators = params.plain(params.read_yaml(params.PARAMS_FILE)).get("rank", {}).get("annotators", ["rules"])
    return str(annotators[0])


def wait_for_people(name: str) -> None:
    """Sample the round's answers, and pause as often as ranks are missing when the run is
    resumed.
    """
    while True:
        try:
            within(until=f"rank@{name}")
            return
        except StageFailed as error:
            if error.code != errors.EXIT_AGAIN:
                raise
            get_run_logger().warning("%s; resume this run when that is done", error)
            pause_flow_run(timeout=PAUSE_SECONDS)


def main(
    count: Annotated[int, typer.Option(min=1, help="rounds to add")] = 1,
    add_only: Annotated[bool, typer.Option("--add-only", help="write dvc.yaml and run nothing")] = False,
) -> None:
    """Add rounds and run them on the local Prefect server, and close with the table."""
    environment.complete()
    try:
        if add_only:
            print("lathe: added", ", ".join(write() for _ in range(count)), "to dvc.yaml")
            return
        print(f"lathe: Prefect at {server.ui_url(server.ensure())}", file=sys.stderr)
        done = rounds(count)
    except (StageError, StageFailed) as error:
        print(f"lathe: {error}", file=sys.stderr, flush=True)
        raise SystemExit(error.code if 0 < error.code < 256 else 1) from error
    print(summary.show([one["stage"] for one in done], {one["stage"]: one["state"] for one in done}))


if __name__ == "__main__":
    typer.run(main)
