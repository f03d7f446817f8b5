"""`clipsieve doctor`: what is installed, what the hardware can do, and what will run where."""

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pipeline import __version__
from pipeline.errors import ClipsieveError, first_line
from pipeline.machine import cpu_features, cpu_name, num_cores
from query.settings import DoctorSettings

if TYPE_CHECKING:
    import torch

    from pipeline.model.precision import Measurement

_PACKAGES = ("torch", "open_clip_torch", "ray", "pyarrow", "pillow", "numpy", "pydantic-settings")
_OPENMP = ("libgomp", "libomp", "libiomp")


def examine(settings: DoctorSettings) -> dict[str, dict[str, Any]]:
    """Collect the facts by section. Loads torch, FAISS and the model, but does not start Ray.

    Raises:
        ConfigError: If the device is not available.
    """
    import torch

    from pipeline.model.device import pick_device

    faiss = _faiss()
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = pick_device(settings.device)
    loading, preprocessing, speeds = _try_model(settings, device)
    workers = f"{num_gpus}, one per GPU" if device.type == "cuda" else f"{num_cores()}, one per core"
    decoded_on_device = "; with --decoder torchvision, some on the GPU" if device.type == "cuda" else ""
    return {
        "versions": {
            "clipsieve": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
            "faiss": f"{faiss['version']} ({_owners('faiss')})",
        },
        "cpu": {
            "model": cpu_name(),
            "cores": num_cores(),
            **{name: "yes" if found else "no" for name, found in cpu_features().items()},
        },
        "gpu": {
            "seen by torch": num_gpus,
            **{f"gpu {number}": torch.cuda.get_device_name(number) for number in range(num_gpus)},
            "seen by faiss": faiss["gpus"],
            "faiss compile options": faiss["compile_options"],
        },
        "faiss on the CPU": {
            "SIMD level": f"{faiss['simd_level']}{', by FAISS_SIMD_LEVEL' if 'FAISS_SIMD_LEVEL' in os.environ else ''}",
            "OpenMP runtimes": _openmp_runtimes(),
        },
        "disk": {"/dev/shm free": _free("/dev/shm"), "temporary folder free": _free("/tmp")},
        "model": {settings.model: loading},
        "pixels against open_clip's own": {f"--decoder {name}": found for name, found in preprocessing.items()},
        **({"speed of precisions": speeds} if speeds else {}),
        "what will run where": {
            "decode": f"CPU, Ray tasks on {num_cores()} cores{decoded_on_device}",
            "encode": f"{device.type}, {speeds.get('auto', settings.precision)}, Ray workers: {workers}",
            "index and search": "GPU" if faiss["gpus"] and settings.device != "cpu" else "CPU",
        },
    }


def _try_model(settings: DoctorSettings, device: "torch.device") -> tuple[str, dict[str, str], dict[str, str]]:
    """Whether the model loads, how its pixels compare with open_clip's by decoder, and what `auto` is by the probe."""
    from pipeline.measure.parity import describe, generated_photos, parity_cosines
    from pipeline.model.device import default_batch_size, use_all_cores
    from pipeline.model.load import load_model
    from pipeline.model.probe import measure
    from pipeline.model.spec import DecoderName
    from pipeline.source.formats.folder import list_images

    precision = "fp32" if settings.precision == "auto" else settings.precision  # rounding would hide differences
    source, speeds = settings.model_source(), {}
    preprocessing = dict.fromkeys(get_args(DecoderName), "not examined")
    try:
        entries = list_images(settings.images)[0] if settings.images else list(generated_photos())
        for decoder in preprocessing:
            loaded = load_model(source.model_copy(update={"decoder": decoder}), precision, device)
            preprocessing[decoder] = describe(parity_cosines(loaded, entries))
        if settings.precision == "auto":
            use_all_cores(1)  # as each of several workers does
            speeds = _speeds(measure(loaded.clip.visual, device, default_batch_size(device), eight_bits=True))
    except ClipsieveError as error:
        return f"failed: {error}", preprocessing, speeds
    described = f"ok, {loaded.spec.embedding_dim} dimensions, weights {loaded.spec.weights_sha256[:16]}"
    return described, preprocessing, speeds


def _speeds(found: "Measurement") -> dict[str, str]:
    speeds = {name: f"{speed:.2f} x fp32" for name, speed in found.speeds.items()}
    disturbed = {"disturbed": "by other load"} if found.is_disturbed else {}
    gain = found.gain_of_8_bits()
    if gain is None:
        return {"auto": str(found.chosen), **speeds} | disturbed
    note = f"{gain:.2f} x the fastest float type; they cost recall, so auto never takes them; give --precision 8bit"
    return {"auto": str(found.chosen), **speeds, "8 bits": note} | disturbed


def _faiss() -> dict[str, str | int]:
    try:
        from indexer.files import faiss_build
    except ImportError as error:  # not installed, or two distributions have overwritten each other's files
        found = "missing" if error.name == "faiss" else f"cannot be imported: {first_line(error)}"
        return {"version": found, "compile_options": "none", "simd_level": "none", "gpus": 0}
    return faiss_build()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _owners(module: str) -> str:
    """The distributions that installed a module, and what to do if there are several."""
    found = sorted(set(metadata.packages_distributions().get(module, [])))
    described = ", ".join(f"{name} {_version(name)}" for name in found) or "of no installed package"
    if len(found) > 1:
        return f"{described}: they overwrite each other's files; uninstall all of them, then install one"
    return described


def _openmp_runtimes() -> str:
    """The OpenMP libraries that this process has loaded. Several are usual: torch and FAISS each bring one."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return "not available"
    paths = {Path(line.split(maxsplit=5)[-1]) for line in lines}
    found = sorted(f"{path.parent.name}/{path.name}" for path in paths if path.name.startswith(_OPENMP))
    return ", ".join(found) or "none"


def _free(path: str) -> str:
    try:
        return f"{shutil.disk_usage(path).free / 2**30:.1f} GiB"
    except OSError:
        return "not available"
