"""Cross-modal low-rank fusion: low-rank updates of both towers' weights, built around small shared cores.

    W' = W + alpha / sqrt(rank) * B S A

A reads the tower's own tokens and B writes to them. The core S (rank x rank) belongs to a depth and a target, and both
towers use it. Each tower still depends on its own input only, so images can be indexed offline. Every update is linear,
so it merges into the weights.

Depth: if C is the number of blocks of the shallower tower, block i of L uses core i * C // L. Scaling by the square
root of the rank follows Kalajdzievski 2023 (arXiv 2312.03732).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn

from pipeline.errors import ConfigError, InputError
from pipeline.model.adapter.config import FusionConfig
from pipeline.model.towers.families import view_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A matrix to update: a range of rows of a weight."""

    key: str
    """Name of its factors."""

    core: str | None
    """Name of its core; None if the update has no core."""

    weight: str
    """Name of the weight in the model's state dict."""

    start: int
    rows: int
    columns: int
    is_transposed: bool = False
    """Whether the rows of the stored weight are inputs."""


class Fusion(nn.Module):
    """The factors of all updates. Holds no weights of the model."""

    def __init__(self, clip: nn.Module, config: FusionConfig, seed: int = 0) -> None:
        """Start with all updates at zero: B, or the diagonals, are zero.

        Args:
            clip: The model to update, with its weights as loaded; it is read but not kept.
            config: What to update.
            seed: Seed for A.

        Raises:
            InputError: If a tower lacks one of the target matrices.
            ConfigError: If the rank exceeds the size of a matrix.
        """
        super().__init__()
        self.config = config
        self.sites = list(_sites(clip, config))
        self._weights = {name: tuple(clip.get_parameter(name).shape) for name in {site.weight for site in self.sites}}
        narrowest = min(self.sites, key=lambda site: min(site.rows, site.columns))
        if config.rank > min(narrowest.rows, narrowest.columns):
            raise ConfigError(
                f"rank = {config.rank}: {narrowest.weight} is {narrowest.rows} x {narrowest.columns}; "
                f"expected at most {min(narrowest.rows, narrowest.columns)}"
            )
        self.up, self.down = nn.ParameterDict(), nn.ParameterDict()
        self.core, self.diagonal = nn.ParameterDict(), nn.ParameterDict()
        generator = torch.Generator().manual_seed(seed)
        for site in self.sites:
            if site.core is None:
                self._start_head(site, generator)
            elif config.factors == "singular":
                self._start_singular(site, _matrix(clip, site))
            else:
                self.up[site.key] = nn.Parameter(torch.zeros(site.rows, config.rank))
                self.down[site.key] = nn.Parameter(_uniform(config.rank, site.columns, generator))
            if site.core:
                self.core[site.core] = nn.Parameter(torch.eye(config.rank))

    def updates(self) -> dict[str, Tensor]:
        """The update to add to each weight, keyed by its name in the state dict; float32, of the weight's shape."""
        parts: dict[str, list[tuple[Site, Tensor]]] = {}
        for site in self.sites:
            parts.setdefault(site.weight, []).append((site, self._update(site)))
        return {name: _assembled(self._weights[name], placed) for name, placed in parts.items()}

    def _update(self, site: Site) -> Tensor:
        up, down = self.up[self._up_key(site)], self.down[site.key]
        if site.core is not None:
            up = up * self.diagonal[site.key] if site.key in self.diagonal else up
            up = up @ self.core[site.core]
        update = self.config.scale * (up @ down)
        return update.T if site.is_transposed else update

    def _up_key(self, site: Site) -> str:
        return site.key if site.core is not None else "head"

    def _start_head(self, site: Site, generator: torch.Generator) -> None:
        # both output projections write to one space: they share the basis F, and the G of each tower starts at zero
        if "head" not in self.up:
            self.up["head"] = nn.Parameter(_uniform(self.config.rank, site.rows, generator).T.contiguous())
        self.down[site.key] = nn.Parameter(torch.zeros(self.config.rank, site.columns))

    def _start_singular(self, site: Site, matrix: Tensor) -> None:
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        rank = self.config.rank
        self.up[site.key] = nn.Parameter(left[:, :rank].contiguous(), requires_grad=False)
        self.down[site.key] = nn.Parameter(right[:rank].contiguous(), requires_grad=False)
        self.diagonal[site.key] = nn.Parameter(torch.zeros(rank))


def core_of(block: int, num_blocks: int, num_cores: int) -> int:
    """The core that a block uses: both towers are mapped to the depth of the shallower one."""
    return block * num_cores // num_blocks


def text_blocks(clip: nn.Module) -> nn.ModuleList:
    """The blocks of the text tower.

    Raises:
        InputError: If the text tower is not open_clip's own.
    """
    if isinstance(getattr(clip, "text", None), HFTextEncoder):
        raise InputError(
            "cannot update the text tower of this model: it is a Hugging Face model; give --variant image-only"
        )
    return (clip.text if hasattr(clip, "text") else clip).transformer.resblocks


def _sites(clip: nn.Module, config: FusionConfig) -> Iterator[Site]:
    towers = {"image": view_of(clip.visual).blocks}
    if config.variant != "image-only":
        towers["text"] = text_blocks(clip)
    names = {id(module): name for name, module in clip.named_modules()}
    num_cores = min(len(blocks) for blocks in towers.values())
    for tower, blocks in towers.items():
        owner = f"{tower}-" if config.variant == "independent" else ""
        for number, block in enumerate(blocks):
            depth = core_of(number, len(blocks), num_cores)
            for target in config.targets:
                for part, weight, start, rows in _matrices(block, target):
                    shape = block.get_parameter(weight).shape
                    yield Site(
                        key=f"{tower}-{number}-{part}",
                        core=f"{owner}{depth}-{part}",
                        weight=f"{names[id(block)]}.{weight}",
                        start=start,
                        rows=rows or shape[0],
                        columns=shape[1],
                    )
    if config.variant == "shared+head":
        yield from _heads(clip)


def _matrices(block: nn.Module, target: str) -> Iterator[tuple[str, str, int, int | None]]:
    """Yield the name, weight in the block, first row and number of rows (None: all) of each matrix of a target."""
    if target == "mlp":
        linears = [name for name, module in block.mlp.named_modules() if isinstance(module, nn.Linear)]
        # numbered, because the families of towers name these layers differently
        yield from ((f"mlp{number}", f"mlp.{name}.weight", 0, None) for number, name in enumerate(linears))
        return
    attention = block.attn
    if target == "o":
        yield "o", "attn.out_proj.weight" if hasattr(attention, "out_proj") else "attn.proj.weight", 0, None
        return
    for joint in ("in_proj_weight", "qkv.weight"):
        if getattr(attention, joint.removesuffix(".weight"), None) is not None:
            rows = attention.get_parameter(joint).shape[0] // 3
            yield target, f"attn.{joint}", "qkv".index(target) * rows, rows
            return
    yield target, f"attn.{target}_proj.weight", 0, None


def _heads(clip: nn.Module) -> Iterator[Site]:
    """Both output projections, which write to the same space."""
    names = {
        "image": ["visual.proj", "visual.head.proj.weight"],
        "text": ["text_projection", "text_projection.weight", "text.text_projection", "text.text_projection.weight"],
    }
    parameters = dict(clip.named_parameters())
    for tower, candidates in names.items():
        name = next((name for name in candidates if name in parameters), None)
        if name is None:
            raise InputError(f"the {tower} tower of this model has no output projection; choose another --variant")
        is_transposed = not name.endswith(".weight")
        shape = parameters[name].shape
        rows, columns = reversed(shape) if is_transposed else shape
        yield Site(
            key=f"{tower}-head",
            core=None,
            weight=name,
            start=0,
            rows=rows,
            columns=columns,
            is_transposed=is_transposed,
        )


def _matrix(clip: nn.Module, site: Site) -> Tensor:
    return clip.get_parameter(site.weight).detach().float()[site.start : site.start + site.rows]


def _assembled(shape: tuple[int, ...], placed: list[tuple[Site, Tensor]]) -> Tensor:
    """Assemble the update of a whole weight from updates of some of its rows; all other rows are zero."""
    parts, row = [], 0
    for site, update in sorted(placed, key=lambda item: item[0].start):
        if site.start > row:
            parts.append(update.new_zeros(site.start - row, shape[1]))
        parts.append(update)
        row = site.start + len(update)
    if row < shape[0]:
        parts.append(parts[-1].new_zeros(shape[0] - row, shape[1]))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _uniform(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return (torch.rand(rows, columns, generator=generator) * 2 - 1) / columns**0.5
