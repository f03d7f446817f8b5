"""Settings of the verbs that measure, and of `demo` and `completion`.

Those of `search` are in `search_settings`, and those of `sweep` in `evaluation.settings`.
"""

from pathlib import Path
from typing import ClassVar, Literal, get_args

from pydantic import AliasChoices, Field, field_validator, model_validator
from pydantic_settings import CliPositionalArg

from pipeline.model.precision import PrecisionChoice
from pipeline.model.spec import DeviceChoice
from pipeline.settings.load import OutputSettings, Settings
from pipeline.settings.model import ModelSettings, PoliciesSettings, PolicySettings
from pipeline.settings.workers import WorkerSettings
from query.formats import picture_path

BENCH_GPU_STEPS = (
    *("doctor", "decoders", "towers", "kernels", "attention"),
    *("transfer", "memory", "faiss", "end-to-end", "tests"),
)
"""The steps of `bench gpu`, in the order in which they run."""


class PrecisionsSettings(Settings):
    """Number formats to compare: shared by the verbs that measure several."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"how good": ("precision",)}

    precision: str = Field(default="auto", validation_alias=AliasChoices("precision", "precisions"))
    """Number formats to compare, separated by commas: auto, fp32, bf16, fp16, int8, fp8, 8bit. The first is that of the
    baseline. auto measures which of fp32, bf16 and fp16 is fastest; 8bit is int8 on a CPU and fp8 on a GPU."""

    @field_validator("precision")
    @classmethod
    def _check_precisions(cls, value: str) -> str:
        names, known = names_in(value), get_args(PrecisionChoice)
        if not names or not set(names) <= set(known):
            raise ValueError(f"expected precisions among {', '.join(known)}, separated by commas")
        if len(set(names)) < len(names):
            raise ValueError("a precision is named twice; name each once")
        return value

    def precisions(self) -> list[PrecisionChoice]:
        """The number formats, that of the baseline first."""
        return names_in(self.precision)


class EvaluateSettings(PrecisionsSettings, WorkerSettings, PoliciesSettings, OutputSettings):
    """Measure recall and speed of the pruned model against the unpruned one, on your own images and captions."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("images", "captions", "out"),
        "how good": ("control",),
        "how fast": ("bench_images",),
    }
    OUTPUTS: ClassVar[dict[str, str]] = {"out": "folder"}

    images: Path
    """Folder of images. All of them are in the gallery."""

    captions: Path
    """TSV of `key TAB caption`. An image may have several captions."""

    out: Path | None = None
    """Folder to keep the stores in. By default, they are temporary."""

    control: str | None = None
    """Adapter trained the same way without pruning. The unpruned model with it shows what training alone gains."""

    device: DeviceChoice = "auto"
    """Where workers encode and the image tower is timed. auto uses GPUs if there are any; with cpu, workers use no
    GPU."""

    bench_images: int = Field(default=128, ge=1)
    """Number of images to time the image tower alone on."""


class InspectSettings(PolicySettings, OutputSettings):
    """Show what a policy does to a model: tokens and multiply-adds of every block, and the patches it keeps."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("image", "picture"),
        "how good": ("precision",),
        "how fast": ("device",),
    }
    OUTPUTS: ClassVar[dict[str, str]] = {"picture": "file"}

    image: Path | None = None
    """Photo to show the kept patches on."""

    picture: Path = Path("kept.png")
    """Picture to write the kept patches to, if --image is given: .png, .jpg or .webp."""

    precision: PrecisionChoice = "fp32"
    """Number format of weights and activations. The table does not depend on it; the kept patches may. auto measures
    which is fastest on the device; int8 is calibrated on the photo."""

    device: DeviceChoice = "auto"
    """Where to run. auto uses a GPU if there is one."""

    _check_picture = field_validator("picture")(picture_path)

    def writes(self, name: str) -> bool:
        """Whether an output is written: the picture only if there is an image."""
        return name != "picture" or self.image is not None


class BenchModelSettings(PrecisionsSettings, PoliciesSettings, OutputSettings):
    """Time the image tower under policies, side by side with the unpruned tower and open_clip's own call."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "how fast": ("device", "compile_tower", "batch_size", "rounds", "batches"),
    }

    device: DeviceChoice = "auto"
    """Where to run. auto uses a GPU if there is one."""

    compile_tower: bool = Field(default=False, alias="compile")
    """Compile every tower with torch.compile and static shapes; on a GPU, also with CUDA graphs."""

    batch_size: int | None = Field(default=None, ge=1)
    """Images per forward pass. By default, 32 on a CPU and 256 on a GPU."""

    rounds: int = Field(default=7, ge=1)
    """Number of timed rounds, after a warm-up round. Each round runs every condition."""

    batches: int = Field(default=2, ge=1)
    """Forward passes per condition and round."""


class BenchGpuSettings(OutputSettings):
    """Measure everything that depends on a GPU: towers, decoders, transfers, memory, FAISS, embedding, tests."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("only",),
        "how fast": ("device", "quick", "minutes"),
        "safety": ("resume",),
        "watching": ("markdown_file",),
    }
    OUTPUTS: ClassVar[dict[str, str]] = {"markdown_file": "file"}

    only: str | None = None
    """Steps to run, separated by commas. By default, all of them run: doctor, decoders, towers, kernels, attention,
    transfer, memory, faiss, end-to-end, tests."""

    device: DeviceChoice = "auto"
    """Where to measure. auto uses a GPU if there is one."""

    quick: bool = False
    """Try every step on as little data as possible. The numbers then mean nothing."""

    minutes: float | None = Field(default=None, gt=0.0)
    """Stop after this many minutes. What does not fit into the time left is not started."""

    resume: bool = False
    """Continue the file of --json-file: keep what it measured, and run the rest."""

    markdown_file: Path | None = None
    """Write the tables to this Markdown file as well."""

    @field_validator("only")
    @classmethod
    def _check_steps(cls, value: str | None) -> str | None:
        for name in names_in(value):
            if name not in BENCH_GPU_STEPS:
                raise ValueError(f"expected steps among {', '.join(BENCH_GPU_STEPS)}")
        return value

    @model_validator(mode="after")
    def _check_resume(self) -> "BenchGpuSettings":
        if self.resume and self.json_file is None:
            raise ValueError("resume = True: there is no file to continue; also give --json-file")
        return self

    def steps(self) -> list[str]:
        """The steps to run."""
        return names_in(self.only) or list(BENCH_GPU_STEPS)


class DemoSettings(OutputSettings):
    """Embed, index, search and measure drawn scenes with the built-in model. Needs no network."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("out", "num_images", "serve", "port"),
        "how good": ("keep_ratio", "precision"),
        "how fast": ("device", "ray_address"),
    }

    out: Path = Path("clipsieve-demo")
    """Folder for the scenes, the stores and the contact sheet."""

    num_images: int = Field(default=1000, ge=20)
    """Number of scenes to draw."""

    serve: bool = False
    """At the end, serve the page to search the scenes: unpruned beside pruned with the adapter. Ctrl+C ends it."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port of the page. 0 stands for any free one."""

    keep_ratio: float | None = Field(default=None, gt=0.0, le=1.0)
    """Keep this share of the patch tokens, above 0 and up to 1, with the reference policy. By default, the policy is
    `balanced`."""

    precision: PrecisionChoice = "auto"
    """Number format of weights and activations. auto measures the fastest; 8bit is int8 on a CPU and fp8 on a GPU."""

    device: DeviceChoice = "auto"
    """Where workers encode. auto uses GPUs if there are any; with cpu, workers use no GPU."""

    ray_address: str | None = None
    """Ray cluster to join. Unless this or RAY_ADDRESS is given, Ray starts on this machine."""


class DoctorSettings(ModelSettings, OutputSettings):
    """Show versions, hardware, and what will run where."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("images",),
        "how good": ("precision",),
        "how fast": ("device",),
    }

    images: Path | None = None
    """Folder of photos to compare the preprocessing with open_clip's own on. By default, a few are generated."""

    precision: PrecisionChoice = "auto"
    """Number format to report, and to load the model in. auto measures which is fastest on the device,
    and loads in fp32."""

    device: DeviceChoice = "auto"
    """Where to load the model. auto uses a GPU if there is one."""


class CompletionSettings(Settings):
    """Print a shell script that completes verbs, flags and choices on TAB."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"what": ("shell",)}

    shell: CliPositionalArg[Literal["bash", "zsh", "fish"]]
    """Shell to print the script for: bash, zsh or fish."""


def names_in(text: str | None) -> list[str]:
    """The names in a list that is separated by commas."""
    return [name for part in (text or "").split(",") if (name := part.strip())]
