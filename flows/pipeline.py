"""dvc.yaml as a list of stages with their parents, read through DVC's own API; nobody restates the
DAG.

Command: python -m flows.pipeline (`make dag`): each stage after its parents, without the code;
`dvc dag` draws the same, 770 columns wide.
"""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.core import params
from stages.common.runtime import whole_files
from stages.common.runtime.errors import ParamsError

RETRIES = 2
NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True)
class Stage:
    """One node of the DAG, under the name that `dvc repro` takes: `sft`, `evaluate@sft`,
    `data/raw/book.txt.dvc`.
    """

    name: str
    cmd: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    parents: tuple[str, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    curves: dict[str, str] = field(default_factory=dict)

    @property
    def gpus(self) -> int:
        """How many GPUs it holds while it runs. Raises ParamsError for a `meta.gpu` that is no
        whole number.
        """
        return self._whole("gpu", 0)

    @property
    def retries(self) -> int:
        """How often it is tried again when it says that trying again may help (`meta.retries`).
        Raises ParamsError.
        """
        return self._whole("retries", RETRIES)

    @property
    def hours(self) -> float | None:
        """The longest it may take (`meta.hours`), or None. Raises ParamsError."""
        hours = self.meta.get("hours")
        if hours is None:
            return None
        if isinstance(hours, bool) or not isinstance(hours, int | float) or not hours > 0:
            raise ParamsError(f"meta.hours of stage '{self.name}' is {hours!r}, no hours above 0", where="dvc.yaml")
        return float(hours)

    def _whole(self, key: str, default: int) -> int:
        count = self.meta.get(key, default)
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ParamsError(f"meta.{key} of stage '{self.name}' is {count!r}, no whole number", where="dvc.yaml")
        return count


def load() -> list[Stage]:
    """Return every stage of the repository we are in, each after its parents, otherwise in the
    file's order.

    Items of a foreach or matrix are stages of their own. Raises ParamsError when DVC cannot read
    the pipeline.
    """
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            graph = repo.index.graph
            place = {stage: index for index, stage in enumerate(repo.index.stages)}
            ordered = networkx.lexicographical_topological_sort(graph.reverse(), key=place.__getitem__)
            return [_stage(node, [parent.addressing for parent in graph.successors(node)]) for node in ordered]
    except DvcException as error:
        what = str(error).splitlines()[0]
        raise ParamsError(what, where="dvc.yaml", remedy="`dvc dag` says more") from error


def cache() -> Path:
    """Return the folder of DVC's cache on this machine."""
    from dvc.repo import Repo

    with Repo() as repo:
        return Path(repo.cache.local.path).parent.parent


def _stage(node: Any, parents: list[str]) -> Stage:
    from dvc.dependency import ParamsDependency

    return Stage(
        name=node.addressing,
        cmd="\n".join(node.cmd) if isinstance(node.cmd, list) else node.cmd or "",
        deps=tuple(dep.def_path for dep in node.deps if not isinstance(dep, ParamsDependency)),
        outs=tuple(out.def_path for out in node.outs),
        parents=tuple(sorted(parents)),
        meta=dict(node.meta or {}),
        metrics=tuple(out.def_path for out in node.outs if out.metric),
        curves={
            out.def_path: str(out.plot["y"]) for out in node.outs if isinstance(out.plot, dict) and "y" in out.plot
        },
    )


def until(stages: list[Stage], name: str) -> list[Stage]:
    """Return stage `name` (or every item of that foreach) with all its ancestors, in the order of
    `stages`.

    Raises ParamsError, with a suggestion, when there is no such stage.
    """
    wanted = {stage.name for stage in stages if name in (stage.name, stage.name.partition("@")[0])}
    if not wanted:
        hint = params.suggestion(name, [stage.name for stage in stages])
        raise ParamsError(f"no stage '{name}'{hint}", where="dvc.yaml")
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted.update(stage.parents)
    return [stage for stage in stages if stage.name in wanted]


def remote() -> str:
    """Return the name of the remote that DVC pushes to, or nothing when there is none."""
    from dvc.repo import Repo

    with Repo() as repo:
        return str(repo.config["core"].get("remote") or "")


def override(settings: Sequence[str]) -> None:
    """Set keys of params.yaml: `sft.training.num_train_epochs=3`; `+KEY=VALUE` adds one, `~KEY`
    takes one away, as in `dvc exp run --set-param`, which would write every list anew and lose
    comments. Every other line stays as it is. Raises ParamsError, and leaves the file as it was.
    """
    if not settings:
        return
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width, yaml.preserve_quotes = 4096, True
    yaml.representer.add_representer(type(None), lambda writer, _: writer.represent_scalar(NULL, "null"))
    document = params.read_yaml(params.PARAMS_FILE)
    for setting in settings:
        key, _, text = setting.partition("=")
        try:
            _set(document, key.strip(), yaml.load(text))
        except YAMLError as error:
            raise ParamsError(f"'{setting}': the value is no YAML", where="set", remedy="KEY=VALUE") from error
    written = io.StringIO()
    yaml.dump(document, written)
    with whole_files.written_whole(params.PARAMS_FILE) as own:
        own.write_text(written.getvalue(), encoding="utf-8")


def _set(document: Any, path: str, value: Any) -> None:
    """Set, add or take away one key. Raises ParamsError where it, or what it is to lie in, is not
    there.
    """
    how, path = (path[0], path[1:]) if path[:1] in ("+", "~") else ("", path)
    *above, last = path.split(".")
    place = document
    for part in [*above, *([] if how == "+" else [last])]:
        if not isinstance(place, dict) or part not in place:
            hint = params.suggestion(part, list(place) if isinstance(place, dict) else [])
            raise ParamsError(f"no key '{path}' in {params.PARAMS_FILE}{hint}", where="set", remedy="KEY=VALUE")
        holder, place = place, place[part]
    if how == "+":
        place[last] = value
    elif how == "~":
        del holder[last]
    else:
        holder[last] = value


def table(stages: Sequence[Stage], width: int = 100) -> str:
    """Return a row a stage: how deep it lies, its name, the stages it follows, and in brackets the
    data that no stage makes.
    """
    depth: dict[str, int] = {}
    rows = []
    made = [out for stage in stages for out in stage.outs]
    for stage in stages:
        depth[stage.name] = 1 + max((depth[parent] for parent in stage.parents if parent in depth), default=-1)
        data = [dep for dep in stage.deps if not dep.startswith("stages/")]
        given = [f"[{dep}]" for dep in data if not any(_related(dep, out) for out in made)]
        rows.append((depth[stage.name], stage.name, " ".join([*stage.parents, *given])))
    wide = max((len(name) for _, name, _ in rows), default=0)
    found = []
    for level, name, before in sorted(rows, key=lambda row: row[0]):
        head = f"{level:2}  {name:{wide}}  "
        inside = textwrap.wrap(before, width, initial_indent=head, subsequent_indent=" " * len(head))
        found += inside or [head.rstrip()]
    return "\n".join(found)


def _related(path: str, out: str) -> bool:
    return path == out or path.startswith(f"{out}/") or out.startswith(f"{path}/")


if __name__ == "__main__":
    print(table(load()))
