"""Sparse attention: which tokens before it a token sees (Child et al. 2019, Sparse Transformers,
section 4.2; Brown et al. 2020, GPT-3, alternates patterns by layer).

A pattern knows distances only, so it is the same for a document wherever it stands: behind others
in a row, behind padding, or in a cache. It is kept in a model's config.json.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt, model_validator

from stages.common.core import params
from stages.common.runtime.errors import DataError, ParamsError

if TYPE_CHECKING:
    import torch

KEY = "sparse_attention"
"""Of config.json: a pattern's `window`, `stride` and `layers`."""
NAME = "lathe_sparse"
"""Of the attention in transformers, and in config.json: a program that does not know it refuses the
model, where it would else read it densely.
"""
FAMILIES = frozenset({"gemma", "gpt2", "gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"})
"""Model types whose layers all attend by transformers' interface; each is tested against a mask."""
Layers = Literal["all", "alternate"]


class Attention(params.StageParams):
    """Key `pretrain.attention` of params.yaml."""

    pattern: Literal["dense", "local_strided"] = "dense"
    """What a token sees: all before it, or its `window` and every `stride`-th token before it."""
    window: PositiveInt | None = None
    """Tokens seen next to each other, a token's own included."""
    stride: PositiveInt | None = None
    """Tokens from one that is seen far away to the next."""
    layers: Layers = "all"
    """`all`: every layer has both; `alternate`: the first, third, … the window, the others the
    stride.
    """

    @model_validator(mode="after")
    def _sizes_where_sparse(self) -> "Attention":
        if (self.pattern == "dense") != (self.window is None and self.stride is None):
            raise ValueError("local_strided needs window and stride, dense has neither")
        if self.pattern != "dense" and not (self.window and self.stride):
            raise ValueError("local_strided needs window and stride")
        return self

    def sparse(self) -> "Pattern | None":
        """Return the pattern; None: attention is dense."""
        if self.window is None or self.stride is None:
            return None
        return Pattern(self.window, self.stride, self.layers)


@dataclass(frozen=True)
class Pattern:
    """A window and a stride, in every layer or in turn."""

    window: int
    stride: int
    layers: Layers = "all"

    @property
    def kinds(self) -> int:
        """How many kinds of layers there are; a layer is of the kind of its number modulo that."""
        return 2 if self.layers == "alternate" else 1

    def sees(self, distance: "torch.Tensor", kind: int) -> "torch.Tensor":
        """Return whether a token in a layer of `kind` sees what stands `distance` tokens before it
        (0: itself); what stands behind it is for others to hide.
        """
        near, far = distance < self.window, distance % self.stride == 0
        if self.layers == "all":
            return near | far
        return far if kind else near

    def visible(self, distance: "torch.Tensor") -> "torch.Tensor":
        """Return [..., kinds, Q, K] of distances [..., Q, K]: what each query sees, in layers of
        each kind. None sees what stands behind it.
        """
        import torch

        before = distance >= 0
        return torch.stack([before & self.sees(distance, kind) for kind in range(self.kinds)], dim=-3)

    def is_dense(self, length: int) -> bool:
        """Whether in rows of `length` every token sees all before it, in every layer."""
        near, far = length <= self.window, self.stride == 1
        return (near or far) if self.layers == "all" else (near and far)


def of(config: Any) -> Pattern | None:
    """Return the pattern of a model by its config; None: attention is dense. Raises DataError for
    one that is none of ours.
    """
    given = getattr(config, KEY, None)
    if given is None:
        return None
    try:
        found = Attention.model_validate({"pattern": "local_strided", **given}).sparse()
    except (TypeError, ValueError) as error:
        raise DataError(f"config.json: {KEY} is {given!r}, no pattern: {error}") from error
    return found


def keep(config: Any, pattern: Pattern | None = None) -> None:
    """Have a config say its pattern wherever it is written; without one given, that it has."""
    if pattern is not None:
        setattr(config, KEY, asdict(pattern))
    if getattr(config, KEY, None) is not None:
        config.attn_implementation = NAME  # transformers takes it out of the config when it reads one


def refuse(config: Any, where: str) -> None:
    """Raise ParamsError where this model's attention cannot be made sparse: `where` asks for it."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    sizes = [name for name in ("sliding_window", "attention_chunk_size") if getattr(config, name, None)]
    if config.model_type not in FAMILIES:
        what = f"a {config.model_type} model has attention of its own; sparse ones are {', '.join(sorted(FAMILIES))}"
    elif sizes or kinds != {"full_attention"}:
        what = f"this {config.model_type} model has a window of its own ({', '.join(sizes) or 'layer_types'})"
    else:
        return
    raise ParamsError(f"'{where}': {what}", where=params.PARAMS_FILE, remedy="set its pattern to dense")


def refuse_compiled(config: Any, training: dict[str, Any], section: str) -> None:
    """Raise ParamsError where a sparse model is to be compiled, whose masks are made anew in each
    call.
    """
    if training.get("torch_compile") and of(config) is not None:
        what = f"'{section}.training.torch_compile': this model has sparse attention, which is not compiled"
        raise ParamsError(what, where=params.PARAMS_FILE, remedy="set it to false")


def refuse_sparse(config: Any, who: str) -> None:
    """Raise ParamsError where the model is sparse, which `who` does not know."""
    if of(config) is not None:
        what = f"{who} reads every model densely, and this one has sparse attention ({KEY} in its config.json)"
        raise ParamsError(what, where=params.PARAMS_FILE, remedy="set run.engine to local, or train a dense model")
