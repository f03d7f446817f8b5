"""An image tower with its linear layers in 8 bits, or observed to find their ranges: of every family, with any policy.

Plain blocks run as a whole (`blocks`, `observe`), other linear layers one by one (`layers`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from pipeline.model.precision import PrecisionChoice
from pipeline.model.pruning.attach import OnCut, attach
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.quantization.blocks import Int8Tower
from pipeline.model.quantization.coverage import Coverage, coverage_of
from pipeline.model.quantization.fp8 import refuse_without_fp8
from pipeline.model.quantization.layers import Int8Layers, LayerObserver
from pipeline.model.quantization.observe import Observer
from pipeline.model.quantization.products import Range
from pipeline.model.quantization.stem import Int8Stem, stem_of
from pipeline.model.spec import Preprocess
from pipeline.model.towers.families import blocks_of, unprunable_reason
from pipeline.model.towers.parts import BlockRunner


def refuse_without_8_bits(visual: nn.Module, precision: PrecisionChoice, image_size: tuple[int, int]) -> None:
    """Refuse an image tower of which a precision of 8 bits would compute no layer. Any other precision suits.

    Args:
        visual: The image tower, with no policy attached.
        precision: The precision.
        image_size: Height and width of its input in pixels.

    Raises:
        InputError: If it is such a tower.
    """
    if precision == "int8":
        coverage_of(visual, image_size)
    elif precision == "fp8":
        refuse_without_fp8(visual)


def attach_int8(
    visual: nn.Module,
    policy: PruningPolicy | None,
    coverage: Coverage,
    ranges: Mapping[str, Range],
    preprocess: Preprocess | None = None,
    on_cut: OnCut | None = None,
    summary_offsets_LD: Tensor | None = None,
    counts: list[int] | None = None,
) -> Callable[[], None]:
    """Make an image tower compute its linear layers by 8-bit products, and prune its tokens by a policy.

    Args:
        visual: The image tower, with weights in float32 on a CPU.
        policy: What to prune; None prunes nothing.
        coverage: That of the tower.
        ranges: How the inputs of its layers are rounded, by name.
        preprocess: If given, a tower that can (`Coverage.reads_pixels`) takes uint8 pixels from then on.
        on_cut: See `attach`, as the two arguments after it.
        summary_offsets_LD: Added to summary tokens.
        counts: Patches per block.

    Returns:
        `detach`, which restores the tower exactly; calling it twice is harmless.
    """
    tower = blocks_of(visual)
    layers = Int8Layers(visual, tower, coverage, ranges)
    runner = Int8Tower(tower, ranges) if tower else None
    detach = _both(_attach(visual, policy, runner, on_cut, summary_offsets_LD, counts), layers.detach)
    if not (preprocess and tower and coverage.reads_pixels):
        return detach
    return _both(detach, Int8Stem(stem_of(tower.stem), preprocess).attach())


class TowerObserver:
    """An image tower in float32 that notes what enters its linear layers, until `detach`."""

    def __init__(
        self,
        visual: nn.Module,
        policy: PruningPolicy | None,
        coverage: Coverage,
        summary_offsets_LD: Tensor | None = None,
    ) -> None:
        """Observe `visual` while `policy` prunes its tokens."""
        tower = blocks_of(visual)
        self._layers = LayerObserver(visual, tower, coverage)
        self._blocks = Observer(tower) if tower else None
        self.detach = _both(_attach(visual, policy, self._blocks, None, summary_offsets_LD), self._layers.detach)
        """Stops observing, and restores the tower exactly."""

    def ranges(self) -> dict[str, Range]:
        """The best range of each input, by the name of the layer."""
        return (self._blocks.ranges() if self._blocks else {}) | self._layers.ranges()


def without_blocks(ranges: Mapping[str, Range], coverage: Coverage, num_blocks: int) -> dict[str, Range]:
    """The ranges with which the first blocks stay in float. `coverage` is that of the tower with these in float."""

    def is_kept(name: str) -> bool:
        number = name.partition(".")[0]
        return int(number) >= num_blocks if number.isdigit() else name in coverage.singles

    return {name: found for name, found in ranges.items() if is_kept(name)}


def _attach(
    visual: nn.Module,
    policy: PruningPolicy | None,
    runner: BlockRunner | None,
    on_cut: OnCut | None,
    summary_offsets_LD: Tensor | None,
    counts: list[int] | None = None,
) -> Callable[[], None]:
    if policy is not None or runner is None or unprunable_reason(visual) is None:
        return attach(visual, policy, on_cut, summary_offsets_LD, counts, runner)
    blocks = blocks_of(visual).blocks
    for block in blocks:
        block.forward = partial(_run_block, runner, block)

    def detach() -> None:
        for block in blocks:
            vars(block).pop("forward", None)

    return detach


def _run_block(runner: BlockRunner, block: nn.Module, x_BTD: Tensor, *args: object, **kwargs: Any) -> Tensor:
    return runner.run_block(block, x_BTD, None, kwargs.get("rope"))


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        first()
        second()

    return run
