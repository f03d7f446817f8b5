"""The keys of a grid file. The text under a key is its help: `clipsieve sweep --keys` prints this tree."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.model.precision import MIN_COSINE, PrecisionChoice
from pipeline.model.pruning.policy import Depth, Ratio, Score
from pipeline.model.spec import EMBEDDED, DeviceChoice
from pipeline.settings.paths import local_setting
from pipeline.yaml_file import kind_of

MAX_K = 100
"""The best so many hits of each query are kept, so recall@k is known up to this k."""

_DATA_NAME = re.compile(r"\w(?:[\w .()-]{0,98}[\w)])?")  # it names files
_TAKEN_NAMES = ("mixed", "timings")
"""Folders beside those of data sets; see `raw.folder.SweepFolder`."""
_SOURCES_OF_DATA = ("images", "webdataset", "classes", "store", "scenes")
_COMPANIONS_OF_DATA = {
    "captions": ("images", "store"),
    "grades": ("images", "store", "webdataset", "scenes"),
    "templates": ("classes", "webdataset"),
}
"""Keys that only some sources of a data set can have."""


def _name_or_policy(value: object) -> object:
    """Check the kind here: pydantic would report a wrong value once for each kind that is allowed."""
    if not isinstance(value, str | dict):
        raise ValueError(f"expected the name of a policy, a FILE.yaml, or a policy spelled out; found {kind_of(value)}")
    return {str(key): part for key, part in value.items()} if isinstance(value, dict) else value


PolicyKeys = Annotated[str | dict[str, Any], BeforeValidator(_name_or_policy)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Pixels = Annotated[int, Field(ge=1)]


class Keys(BaseModel):
    """Root of every part of a grid."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _take_local_paths(cls, value: object, info: ValidationInfo) -> object:
        name = str(info.field_name)
        annotation = cls.model_fields[name].annotation
        if isinstance(value, list) and get_origin(annotation) is tuple:
            one = {"adapters": "adapter", "policies": "policy"}.get(name, name)
            return [local_setting(one, get_args(annotation)[0], item) for item in value]
        return local_setting(name, annotation, value)


class ModelKeys(Keys):
    """A model, as in the flags of `clipsieve embed`."""

    model: str = EMBEDDED
    """An open_clip name, hf-hub:ORG/NAME, local-dir:PATH, or the built-in model `scenes`."""
    pretrained: str | None = None
    """Pretrained tag or checkpoint file. An open_clip name needs one."""
    random_weights: bool = False
    """Use random weights, to measure speed only."""


class DataKeys(Keys):
    """A data set. Give exactly one of images (with captions or grades), webdataset, classes, store and scenes."""

    name: str = Field(min_length=1)
    """Name of the data set in results."""
    images: Path | None = None
    """Folder of images, for `captions` or `grades`."""
    captions: Path | None = None
    """A TSV of `key TAB caption`, or Karpathy's JSON (dataset_flickr8k.json, dataset_coco.json)."""
    webdataset: Path | None = None
    """Folder in CLIP_benchmark's layout: tars under the name of the split, for captions or for classes."""
    classes: Path | None = None
    """Folder with one folder of images for each class. Measures accuracy@1 and @5."""
    templates: Path | None = None
    """Text file of prompts for `classes` or `webdataset`, one per line, with {c} in the place of the class."""
    store: Path | None = None
    """A store: its images, and their captions or those of `captions`."""
    scenes: int | None = Field(default=None, ge=20)
    """So many drawn scenes with captions, for the built-in model."""
    split: str = "test"
    """Split of Karpathy's JSON or of a webdataset."""
    grades: Path | None = None
    """TSV of `caption TAB key TAB grade`: graded relevance. Its captions are then the queries, and no others."""
    captions_per_image: int | None = Field(default=5, ge=1)
    """The first so many captions of each image are queries; the others are counted and left out. null takes all."""
    num_images: int | None = Field(default=None, ge=1)
    """A random sample of so many of its own images that answer a query. By default, all of its images."""
    distractors: tuple[Path, ...] = ()
    """Folders of images that answer no query. They join the gallery of the decomposition."""
    seed: int = 1
    """Seed of the sample."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not _DATA_NAME.fullmatch(value):
            raise ValueError(
                "expected at most 100 letters, digits, spaces and any of _-.(), because files are named after it"
            )
        if value.lower() in _TAKEN_NAMES:
            raise ValueError("a sweep has a folder of this name itself; choose another")
        return value

    @model_validator(mode="after")
    def _check_source(self) -> "DataKeys":
        given = [name for name in _SOURCES_OF_DATA if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"expected exactly one of {', '.join(_SOURCES_OF_DATA)}; found {found}")
        for name, sources in _COMPANIONS_OF_DATA.items():
            if getattr(self, name) is not None and given[0] not in sources:
                raise ValueError(f"{name} goes with {' or '.join(sources)}, not with {given[0]}; remove it")
        if self.images and not (self.captions or self.grades):
            raise ValueError("images need captions or grades; add one of these keys with a file")
        return self


class SeriesKeys(Keys):
    """Conditions that belong together: every combination of the lists that are given."""

    name: str = Field(min_length=1)
    """Name of the series in tables and plots."""
    model: ModelKeys | None = None
    """Another model than that of the grid: a rival, whatever the other keys say."""
    policies: tuple[PolicyKeys, ...] = ()
    """Names of policies, policy files, or policies spelled out. `none` is the unpruned tower."""
    gmac_ratios: tuple[Annotated[float, Field(gt=1.0)], ...] = ()
    """Sharpen each policy until the tower needs so many times fewer multiply-adds."""
    scores: tuple[Score, ...] = ()
    """Scores of policies with one cut, with `depths` and `keeps`."""
    depths: tuple[Depth, ...] = ()
    """Where the cut is, as a share of the tower's depth."""
    keeps: tuple[Ratio, ...] = ()
    """Share of the patch tokens that the cut keeps."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Other fields of the policies that are spelled out or have one cut."""
    adapters: tuple[str, ...] = ()
    """Adapters: a directory, `scenes`, or `none` for the bare model."""
    image_sizes: tuple[Pixels, ...] = ()
    """Sides of the tower's input in pixels. Without policies, they run under `lossless`."""
    precisions: tuple[PrecisionChoice, ...] = ()
    """Number formats. By default, that of the grid."""


class RivalKeys(Keys):
    """The simple alternatives that every sweep measures beside its own conditions, each at several strengths."""

    image_sizes: tuple[Share, ...] = Field(default=(0.86, 0.71), min_length=1)
    """Down-scaled input: shares of the model's own side, rounded to whole patches."""
    keeps: tuple[Share, ...] = Field(default=(0.7, 0.5), min_length=1)
    """Shares that random dropping, grid dropping and the reference method keep, at a quarter of the depth."""
    removed: tuple[Share, ...] = Field(default=(0.041, 0.0664), min_length=1)
    """Shares of the tokens that bipartite merging removes at each block."""


class CalibrationKeys(Keys):
    """How int8 rounds: ranges of activations, measured on images. Best are photos like yours that answer no query."""

    images: Path | None = None
    """Folder of images. By default, those of the first data set."""
    num_images: int = Field(default=256, ge=1)
    """A random sample of so many of them; all, if there are fewer."""
    seed: int = 1
    """Seed of the sample."""
    min_cosine: float = Field(default=MIN_COSINE, ge=0, lt=1)
    """Least mean cosine of int8 to float on them. As many of the first blocks as it takes stay in float."""
    file: Path | None = None
    """Calibration that was measured earlier, such as calibration.safetensors of a store. It fits one model, adapter and
    image size."""

    @model_validator(mode="after")
    def _check_source(self) -> "CalibrationKeys":
        if self.file and (taken := sorted(self.model_fields_set - {"file"})):
            raise ValueError(f"with a file nothing is measured, so {' and '.join(taken)} would do nothing; remove it")
        return self


class IndexKeys(Keys):
    """An index over the gallery, searched at several operating points."""

    recipe: str = "auto"
    """A faiss.index_factory string, such as IVF64,Flat; auto takes the planner's choice."""
    efforts: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """nprobe or efSearch of each point. By default, the point that the index was tuned to."""


class DecomposeKeys(Keys):
    """Where the recall of text queries goes: unpruned, pruned, with an adapter, through an index."""

    conditions: tuple[str, ...] = Field(min_length=1)
    """Names of pruned conditions without an adapter."""
    adapter: str | None = None
    """The adapter of the next step; it must be among the adapters of their series."""
    adapter_saw_distractors: bool | None = None
    """Whether the adapter was trained on the distractors; the result says so."""
    indexes: tuple[IndexKeys, ...] = ()
    """The last steps: each operating point of these indexes."""


class Bounds(Keys):
    """What a gate asks for. Losses and recall are fractions: 0.01 is one point."""

    max_loss: float | None = Field(default=None, ge=0)
    """Largest loss against the unpruned model, or against the baseline of `--baseline`."""
    min: float | None = None
    """Smallest value."""
    max: float | None = None
    """Largest value."""

    @model_validator(mode="after")
    def _check_bounds(self) -> "Bounds":
        if self.max_loss is None and self.min is None and self.max is None:
            raise ValueError("there is no bound; give max_loss, min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min = {self.min:g} is above max = {self.max:g}; nothing can pass")
        return self


class GridKeys(Keys):
    """A sweep: conditions, data sets, and what is asked of the results."""

    model: ModelKeys = ModelKeys()
    """The model. Its unpruned tower, as open_clip runs it, is the baseline of everything."""
    data: tuple[DataKeys, ...] = Field(min_length=1)
    """The data sets."""
    series: tuple[SeriesKeys, ...] = ()
    """What is compared."""
    rivals: RivalKeys = RivalKeys()
    """The simple alternatives that are measured as well."""
    decompose: DecomposeKeys | None = None
    """Where the loss comes from, step by step."""
    mixed: tuple[tuple[str, str], ...] = ()
    """Pairs of conditions whose images share one gallery, half each."""
    precision: PrecisionChoice = "auto"
    """Number format of all conditions that name none. auto measures once, on the first model, which is fastest.
    8bit is int8 on a CPU and fp8 on a GPU, and never taken by auto."""
    calibration: CalibrationKeys = CalibrationKeys()
    """What conditions in int8 are calibrated on."""
    device: DeviceChoice = "auto"
    """Where to run. auto uses a GPU if there is one."""
    batch_size: int | None = Field(default=None, ge=1)
    """Images per forward pass. By default, 32 on a CPU and 256 on a GPU."""
    rounds: int = Field(default=7, ge=2)
    """Timed rounds, after a warm-up. Each round runs every condition once, in turn."""
    bench_images: int = Field(default=64, ge=1)
    """Images that each condition is timed on, in each round."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    """Seeds of random dropping: one condition each."""
    ks: tuple[Annotated[int, Field(ge=1, le=MAX_K)], ...] = Field(default=(1, 5, 10), min_length=1)
    """The k of recall@k, each at most 100."""
    epsilon: float = Field(default=1e-3, ge=0)
    """A right answer counts as a hit within so much of the k-th score, in recall@k(epsilon)."""
    losses: tuple[Annotated[float, Field(gt=0)], ...] = (0.5, 1.0, 2.0)
    """Points of recall that one may be ready to lose: a setting is recommended for each."""
    speeds: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Images per second that one may need: a setting is recommended for each."""
    metric: str = "image_retrieval_recall@5"
    """The metric of plots, fronts and recommendations."""
    require: dict[str, Bounds] = Field(default_factory=dict)
    """Gates, by metric or `speedup`: checked for every condition with `--gate`."""
    gates_of: Literal["all", "series"] = "series"
    """Which conditions the gates hold for: those of the series, or rivals too."""
