"""The command `lathe`: every task of the project under one name, with help and completion.

Each task is a module of its own, started in this process's place; this file knows their names and
arguments alone, so that help comes at once. `make` targets call it.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from stages.common.runtime.libraries import SETTINGS

PROFILES = Path("infra/profiles")
EPILOG = "Examples:  lathe demo --profile quick  |  lathe serve  |  lathe trace demo/conversations_openai.jsonl:12"

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, epilog=EPILOG)


def profiles() -> list[str]:
    """Return the names of the profiles."""
    return sorted(file.stem for file in PROFILES.glob("*.yaml"))


def known_profiles(incomplete: str) -> list[str]:
    """Return profiles for the shell's completion."""
    return [name for name in profiles() if name.startswith(incomplete)]


Profile = Annotated[
    str | None, typer.Option(help="a file of infra/profiles, without .yaml", autocompletion=known_profiles)
]
ProfileName = Annotated[str, typer.Argument(help="a file of infra/profiles", autocompletion=known_profiles)]
Reason = Annotated[str | None, typer.Option(help="why, for the record")]
Anyway = Annotated[bool, typer.Option("--anyway", help="though a person decided against it before")]
Version = Annotated[str, typer.Argument(help="number of the version")]
PASSED = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
"""For tasks with options of their own, which their module explains."""


def environment() -> dict[str, str]:
    """Return this environment with this interpreter's commands first, and SETTINGS where it says
    nothing.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return SETTINGS | os.environ | {"PATH": path}


def start(module: str, *arguments: str) -> NoReturn:
    """Run a module in this process's place."""
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment())


def must(*command: str) -> None:
    """Run a command; where it fails, end as it did."""
    done = subprocess.run([sys.executable, "-m", *command], env=environment(), check=False)
    if done.returncode:
        raise typer.Exit(done.returncode if done.returncode > 0 else 128 - done.returncode)


def told(reason: str | None) -> Sequence[str]:
    """Return the option for a reason, if there is one."""
    return ["--reason", reason] if reason else []


@app.command(epilog="Example:  lathe demo --profile quick")
def demo(profile: Profile = None) -> None:
    """Run the whole pipeline, data to champion."""
    if profile:
        must("flows.cli.profile", profile)
    must("dvc", "repro")
    start("flows.cli.summary")


@app.command(epilog="Example:  lathe profile own-text")
def profile(name: ProfileName) -> None:
    """Take a complete params.yaml; the one before is kept."""
    start("flows.cli.profile", name)


@app.command(epilog="Example:  lathe doctor --profile qwen2.5-0.5b")
def doctor(profile: Profile = None) -> None:
    """Say whether this machine, or a GPU, can run it."""
    start(*(["flows.plans.profile_plan", profile] if profile else ["flows.cli.doctor"]))


@app.command(context_settings=PASSED, epilog="Example:  lathe flow --until sft")
def flow(context: typer.Context) -> None:
    """Run the same pipeline through Prefect."""
    start("flows.train", *context.args)


@app.command("round", context_settings=PASSED, epilog="Example:  lathe round --count 2")
def another_round(context: typer.Context) -> None:
    """Run one more round of RLHF."""
    start("flows.rounds", *context.args)


@app.command()
def up() -> None:
    """Start MLflow, Prefect, a worker and the chat."""
    start("flows.local.services", "up")


@app.command()
def down() -> None:
    """Stop what `lathe up` started."""
    start("flows.local.services", "down")


@app.command(context_settings=PASSED)
def serve(context: typer.Context) -> None:
    """Serve the champion, on http://127.0.0.1:7860."""
    start("stages.deploy", "serve", *context.args)


@app.command()
def feedback() -> None:
    """Make raw data of what people said on the pages."""
    start("flows.cli.feedback")


@app.command()
def review() -> None:
    """Ask about a waiting version in Prefect's page."""
    start("flows.release", "review")


@app.command(epilog='Example:  lathe approve 3 --reason "reads well"')
def approve(version: Version, reason: Reason = None, anyway: Anyway = False) -> None:
    """Make a version that waits the champion."""
    meant = ["--anyway"] if anyway else []
    start("flows.release", "approve", version, *told(reason or "by lathe approve"), *meant)


@app.command(epilog='Example:  lathe reject 3 --reason "too short"')
def reject(version: Version, reason: Reason = None) -> None:
    """Say that a version that waits is not wanted."""
    start("flows.release", "reject", version, *told(reason or "by lathe reject"))


@app.command(epilog='Example:  lathe rollback --reason "it is rude"')
def rollback(reason: Reason = None) -> None:
    """Make the champion before this one champion again."""
    start("flows.release", "rollback", *told(reason or "by lathe rollback"))


@app.command(epilog="Example:  lathe challenge 4")
def challenge(version: Version) -> None:
    """Try a version in traffic, beside the champion."""
    start("flows.release", "challenge", version)


@app.command(epilog="Example:  lathe reproduce 3")
def reproduce(version: Version) -> None:
    """Make a version anew and compare the weights."""
    start("flows.cli.reproduce", version)


@app.command(context_settings=PASSED, epilog="Example:  lathe export 3 --format hf")
def export(context: typer.Context) -> None:
    """Export a version for other programs, checked."""
    start("flows.export", *context.args)


@app.command(epilog="Example:  lathe trace demo/conversations_openai.jsonl:12")
def trace(record: Annotated[str, typer.Argument(help="id of a record: file and line")]) -> None:
    """Follow one record through every step."""
    start("flows.lineage.trace", record)


@app.command(epilog="Example:  lathe versions demo/conversations_openai.jsonl:12")
def versions(record: Annotated[str, typer.Argument(help="id of a record: file and line")]) -> None:
    """Say which models and versions read a record."""
    start("flows.lineage.versions", record)


@app.command(context_settings=PASSED, epilog="Example:  lathe params --set sft.training.num_train_epochs=3")
def params(context: typer.Context) -> None:
    """List every key of params.yaml, or set some."""
    start("flows.cli.parameters", *context.args)


@app.command(context_settings=PASSED)
def drift(context: typer.Context) -> None:
    """Write what people ask, by day, against the data."""
    start("stages.common.serving.drift.page", *context.args)


@app.command()
def metrics() -> None:
    """Print the figures, and what changed in them."""
    must("dvc", "metrics", "show")
    start("dvc", "metrics", "diff")


@app.command()
def plots() -> None:
    """Draw loss curves and accuracy by group."""
    start("dvc", "plots", "show")


@app.command()
def dag() -> None:
    """Print the pipeline, each stage with its parents."""
    start("flows.pipeline")


@app.command(context_settings=PASSED, epilog="Example:  lathe compare main --out compare.md")
def compare(context: typer.Context) -> None:
    """Compare this checkout with a commit."""
    start("flows.cli.compare", *context.args)


@app.command("gc", context_settings=PASSED, epilog="Example:  lathe gc --keep 2 --remove")
def clean_up(context: typer.Context) -> None:
    """Say what may be removed, or remove it."""
    start("flows.cli.clean_up", *context.args)


@app.command(context_settings=PASSED)
def experiments(context: typer.Context) -> None:
    """Try what the literature claims of the recipe."""
    start("flows.experiments", *context.args)


def main() -> None:
    """Run a task; outside the project's root say where it belongs."""
    help_alone = not set(sys.argv[1:]) - {"--help", "--install-completion", "--show-completion"}
    if not Path("dvc.yaml").is_file() and not help_alone and "_LATHE_COMPLETE" not in os.environ:
        print("lathe: no dvc.yaml here; run it from the project's root: cd <the checkout>", file=sys.stderr)
        sys.exit(2)
    app(prog_name="lathe")


if __name__ == "__main__":
    main()
