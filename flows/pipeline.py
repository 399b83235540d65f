"""dvc.yaml as a list of stages with their parents, read through DVC's own API; nobody restates the
DAG.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.common.core import params
from stages.common.runtime.errors import ParamsError


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

    @property
    def gpus(self) -> int:
        """How many GPUs it holds while it runs. Raises ParamsError for a `meta.gpu` that is no
        whole number.
        """
        count = self.meta.get("gpu", 0)
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ParamsError(f"meta.gpu of stage '{self.name}' is {count!r}, no whole number", where="dvc.yaml")
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
