"""Settings of `clipsieve sweep`."""

from pathlib import Path
from typing import ClassVar

from pydantic import field_validator, model_validator
from pydantic_settings import CliPositionalArg

from pipeline.settings.load import OutputSettings
from query.settings import names_in

SWEEP_EXPORTS = ("clip_benchmark", "mteb", "trec", "ranks")
"""The formats that `sweep` can also write its results in."""


class SweepSettings(OutputSettings):
    """Measure recall and speed of many conditions, with intervals and against rivals, and write a report."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("grid", "out", "report_only", "again", "keys"),
        "how good": ("gate", "baseline", "strict"),
        "watching": ("export", "photos"),
    }
    OUTPUTS: ClassVar[dict[str, str]] = {"out": "folder"}

    grid: CliPositionalArg[Path | None] = None
    """YAML file of conditions and data sets; see configs/bench/grids/ and --keys."""

    out: Path | None = None
    """Folder for everything that is measured, and for the report. What it already holds is not measured again."""

    report_only: bool = False
    """Measure nothing: report what --out holds. GRID may be left out; only its gates count then."""

    again: bool = False
    """Measure everything again, also what --out already holds."""

    keys: bool = False
    """Print every key of a grid with its type, default and help, and measure nothing."""

    gate: bool = False
    """Check the results against `require` of the grid: OK, FAIL or DRIFT, row by row. FAIL ends with exit code 6."""

    baseline: Path | None = None
    """Folder of an earlier sweep of the same data: losses are against it, not the unpruned model. Includes --gate."""

    strict: bool = False
    """Let DRIFT end with exit code 6, too. Includes --gate."""

    export: str | None = None
    """Formats to write the results in as well, separated by commas: clip_benchmark, mteb, trec, ranks."""

    photos: bool = True
    """Show example queries and photographs in the report; not for data that must not be passed on."""

    @field_validator("export")
    @classmethod
    def _check_export(cls, value: str | None) -> str | None:
        for name in names_in(value):
            if name not in SWEEP_EXPORTS:
                raise ValueError(f"expected formats among {', '.join(SWEEP_EXPORTS)}")
        return value

    @model_validator(mode="after")
    def _check_work(self) -> "SweepSettings":
        if self.keys:
            return self
        if self.report_only and self.again:
            raise ValueError("--report-only measures nothing and --again measures all; give only one")
        if self.grid is None and not self.report_only:
            raise ValueError("GRID is missing; give a YAML file, and see --keys and configs/bench/grids/")
        if self.out is None:
            raise ValueError("out is missing; give --out, a folder for the results")
        if self.baseline and self.baseline.resolve() == self.out.resolve():
            raise ValueError("--baseline is --out, and nothing differs from itself; give another folder to one of them")
        return self

    @property
    def gates(self) -> bool:
        """Whether the results are checked against the grid's gates."""
        return self.gate or self.strict or self.baseline is not None

    def formats(self) -> list[str]:
        """The formats to export to."""
        return names_in(self.export)
