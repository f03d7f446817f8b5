"""Compare our 8-bit towers with those of OpenVINO and ONNX Runtime, from uint8 pixels to unit embeddings.

    pip install openvino nncf onnxruntime onnx onnxscript
    python tests/drills/engines.py --json engines.json

Both engines go into an environment that already has clipsieve. They are no dependencies of it. Each runs in its own
process.

All engines get the same tower and policy, with a batch of a fixed size: ours through `Encoder`, OpenVINO's through
`torch.jit.trace`, ONNX Runtime's through `torch.onnx.export`. All are calibrated on the same photographs of the
training split. NNCF quantises for OpenVINO as it does for transformers, with SmoothQuant and fast bias correction. ONNX
Runtime's own static quantisation (QDQ; unsigned activations, signed weights per output channel) takes the matrix
products with constant weights. `2 streams` runs the two halves of a batch side by side on one thread each, as OpenVINO
does for throughput.

A round runs every condition once; every other round reverses the order. A ratio is the median of the ratios to our int8
with the same policy in the same round. On a machine with other work, wall time favours the engine whose threads wait
least for each other. There, `--threads 1 --clock cpu` compares the time that each takes of one core.

Accuracy is the mean cosine to our float32 embeddings of the same policy. Only that of trained weights means something:
random ones lack the outliers that make rounding hard.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.measure.provenance import provenance
from pipeline.model.calibrate import calibrated
from pipeline.model.encode import fastest_encoder
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import PruningPolicy, named_policy
from pipeline.model.spec import LOCAL_DIR, ModelSource
from pipeline.model.transform import PixelScaling

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("CLIPSIEVE_SHARED", ROOT.parent / "shared")).absolute()
REFERENCE = "lit-vit-ti-16"
FLOAT, OURS = "ours, fp32", "ours, int8"
CALIBRATION_BATCH = 32
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PACKAGES = ("openvino", "nncf", "onnxruntime", "onnx", "torch")

Call = Callable[[np.ndarray], np.ndarray]
"""uint8 pixels [B, H, W, 3] to unit embeddings [B, E]."""


class WholeTower(nn.Module):
    """What an engine gets: an image tower with what comes before and after it."""

    def __init__(self, visual: nn.Module, scaling: PixelScaling) -> None:
        super().__init__()
        self.visual = visual
        self._scaling = scaling

    def forward(self, pixels_BHWC: Tensor) -> Tensor:
        return nn.functional.normalize(self.visual(self._scaling(pixels_BHWC)), dim=-1)


def main() -> None:
    arguments = parse_arguments()
    rows = []
    for name in arguments.models.split(","):
        for row in compare(name, arguments):
            rows.append(row)
            print(format_row(row), file=sys.stderr)
    print_table(rows)
    if arguments.json:
        environment = provenance() | {name: version(name) for name in PACKAGES}
        environment |= {name: value for name, value in vars(arguments).items() if name != "json"}
        environment["command"] = " ".join(["python", "tests/drills/engines.py", *sys.argv[1:]])
        arguments.json.write_text(json.dumps({"rows": rows, "environment": environment}, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=f"{REFERENCE},ViT-B-16", help="an open_clip name gets random weights")
    parser.add_argument("--policies", default="none,fast")
    parser.add_argument("--engines", default="openvino,onnxruntime")
    parser.add_argument("--precisions", default="fp32,int8")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, on a busy machine")
    parser.add_argument("--openvino-hint", default="f32", help="the type of what is not in 8 bits; bf16 is another")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--num-test", type=int, default=200, help="photographs to compare embeddings on")
    parser.add_argument("--num-calibration", type=int, default=128)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def photos(folder: Path, number: int) -> np.ndarray:
    """Some photographs of a folder, 224 x 224 as they are stored: uint8 [N, H, W, 3]."""
    paths = sorted(folder.rglob("*.jpg"))
    chosen = np.random.default_rng(0).permutation(len(paths))[:number]
    return np.stack([np.asarray(Image.open(paths[place]).convert("RGB")) for place in chosen])


def compare(name: str, arguments: argparse.Namespace) -> Iterator[dict]:
    """The rows of one model."""
    for policy in arguments.policies.split(","):
        engines = [Engine(engine, name, policy, arguments) for engine in ("ours", *arguments.engines.split(","))]
        owner = {key: engine for engine in engines for key in engine.keys}
        seconds: dict[str, list[float]] = {key: [] for key in owner}
        for number in range(arguments.rounds + 1):
            for key in reversed(owner) if number % 2 else owner:
                seconds[key].append(owner[key].ask("seconds", key))
        embeddings = {key: engine.ask("embeddings", key) for key, engine in owner.items()}
        for engine in engines:
            engine.stop()
        for key, values in seconds.items():
            ratios = [ours / theirs for ours, theirs in zip(seconds[OURS][1:], values[1:], strict=True)]
            yield {
                "model": name,
                "policy": policy,
                "engine": key,
                "images_per_second": arguments.batch_size / statistics.median(values[1:]),
                "ratio_to_ours": statistics.median(ratios),
                "cosine": float((embeddings[key] * embeddings[FLOAT]).sum(axis=1).mean()),
                "seconds": values[1:],  # the first round does not count
            }


class Engine:
    """An engine in a process of its own, so that its threads and their places do not disturb the others."""

    def __init__(self, engine: str, model: str, policy: str, arguments: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(engine, model, policy, arguments, other), daemon=True)
        self._process.start()
        other.close()
        self.keys: list[str] = self._connection.recv()

    def ask(self, what: str, key: str) -> Any:
        """The seconds of one batch, or the embeddings of the test photographs."""
        self._connection.send((what, key))
        return self._connection.recv()

    def stop(self) -> None:
        self._connection.close()
        self._process.join()


def serve(engine: str, name: str, policy_name: str, arguments: argparse.Namespace, connection: Connection) -> None:
    """Load a tower into an engine, and answer `Engine.ask`."""
    torch.set_num_threads(arguments.threads)
    source = ModelSource(model=name, random_weights=True)
    if name == REFERENCE:
        source = ModelSource(model=f"{LOCAL_DIR}{SHARED / 'models' / name}")
    train_NHWC = photos(SHARED / "data/flickr8k-train", arguments.num_calibration)
    test_NHWC = photos(SHARED / "data/flickr8k-test", arguments.num_test)
    policy = None if policy_name == "none" else named_policy(policy_name)
    calls = {"ours": our_calls, "openvino": openvino_calls, "onnxruntime": onnxruntime_calls}[engine](
        source, policy, train_NHWC, arguments
    )
    connection.send(list(calls))
    clock = CLOCKS[arguments.clock]
    while True:
        try:
            what, key = connection.recv()
        except EOFError:
            return
        if what == "embeddings":
            connection.send(embed(calls[key], test_NHWC, arguments.batch_size))
            continue
        started = clock()
        calls[key](test_NHWC[: arguments.batch_size])
        connection.send(clock() - started)


def batches(pixels_NHWC: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Whole batches; the last one starts earlier, so that it is full."""
    for start in range(0, len(pixels_NHWC), size):
        start = min(start, len(pixels_NHWC) - size)
        yield pixels_NHWC[start : start + size]


def embed(call: Call, pixels_NHWC: np.ndarray, size: int) -> np.ndarray:
    """Embeddings of a number of images that the batch size need not divide."""
    parts = [call(part) for part in batches(pixels_NHWC, size)]
    parts[-1] = parts[-1][(size * len(parts) - len(pixels_NHWC)) :]
    return np.concatenate(parts)


def our_calls(
    source: ModelSource, policy: PruningPolicy | None, train_NHWC: np.ndarray, arguments: argparse.Namespace
) -> dict[str, Call]:
    train = batches(train_NHWC, CALIBRATION_BATCH)
    in_8_bits = calibrated(load_model(source, "int8", "cpu"), policy, train)
    return {
        FLOAT: fastest_encoder(load_model(source, "fp32", "cpu"), policy).encode,
        OURS: fastest_encoder(in_8_bits, policy).encode,
    }


def whole_tower(source: ModelSource, policy: PruningPolicy | None) -> WholeTower:
    """The tower that an engine gets, which skips what nothing reads, as ours does."""
    loaded = load_model(source, "fp32", "cpu")
    fastest_encoder(loaded, policy)  # attaches the policy
    return WholeTower(loaded.clip.visual, PixelScaling(loaded.spec.preprocess, loaded.device, torch.float32)).eval()


@torch.no_grad()
def openvino_calls(
    source: ModelSource, policy: PruningPolicy | None, train_NHWC: np.ndarray, arguments: argparse.Namespace
) -> dict[str, Call]:
    import nncf
    import openvino

    def model_of(size: int, precision: str) -> "openvino.Model":
        example = torch.from_numpy(train_NHWC[:size])
        traced = torch.jit.trace(whole_tower(source, policy), example, check_trace=False)
        model = openvino.convert_model(traced, example_input=example, input=[example.shape])
        if precision == "fp32":
            return model
        data = nncf.Dataset([*batches(train_NHWC, size)])
        return nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=data.get_length())

    def compiled(model: "openvino.Model", streams: int) -> "openvino.CompiledModel":
        settings = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": arguments.threads}
        return openvino.compile_model(model, "CPU", settings | {"INFERENCE_PRECISION_HINT": arguments.openvino_hint})

    def side_by_side(model: "openvino.CompiledModel") -> Call:
        requests = [model.create_infer_request() for _ in range(2)]

        def call(pixels_BHWC: np.ndarray) -> np.ndarray:
            for request, half in zip(requests, np.split(pixels_BHWC, 2), strict=True):
                request.start_async({0: half})
            for request in requests:
                request.wait()
            return np.concatenate([request.get_output_tensor().data for request in requests])

        return call

    calls: dict[str, Call] = {}
    for precision in arguments.precisions.split(","):
        whole = compiled(model_of(arguments.batch_size, precision), 1)
        calls[f"openvino, {precision}"] = lambda pixels, whole=whole: whole(pixels)[0]
        if precision == "int8" and arguments.threads == 2:
            calls["openvino, int8, 2 streams"] = side_by_side(compiled(model_of(arguments.batch_size // 2, "int8"), 2))
    return calls


@torch.no_grad()
def onnxruntime_calls(
    source: ModelSource, policy: PruningPolicy | None, train_NHWC: np.ndarray, arguments: argparse.Namespace
) -> dict[str, Call]:
    import onnxruntime
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = batches(train_NHWC, arguments.batch_size)

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self._batches, None)
            return None if part is None else {"pixels": part}

    def session(path: Path) -> Call:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        options.add_session_config_entry("session.force_spinning_stop", "1")  # leaves the cores to the other engines
        opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda pixels: opened.run(None, {"pixels": pixels})[0]

    calls: dict[str, Call] = {}
    with tempfile.TemporaryDirectory() as folder:
        given, ready, rounded = (Path(folder) / f"{name}.onnx" for name in ("given", "ready", "rounded"))
        example = torch.from_numpy(train_NHWC[: arguments.batch_size])
        torch.onnx.export(
            whole_tower(source, policy), (example,), given, dynamo=True, external_data=False, input_names=["pixels"]
        )
        for precision in arguments.precisions.split(","):
            if precision == "int8":
                quant_pre_process(given, ready, skip_symbolic_shape=True)  # every shape is fixed
                quantization.quantize_static(
                    ready,
                    rounded,
                    Reader(),
                    quant_format=quantization.QuantFormat.QDQ,
                    op_types_to_quantize=["MatMul", "Gemm"],
                    per_channel=True,
                    activation_type=quantization.QuantType.QUInt8,
                    weight_type=quantization.QuantType.QInt8,
                    extra_options={"MatMulConstBOnly": True},
                )
            calls[f"onnxruntime, {precision}"] = session(rounded if precision == "int8" else given)
    return calls


def print_table(rows: list[dict]) -> None:
    print("| model | policy | engine | images/s | against ours, int8 | cosine |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(format_row(row))


def format_row(row: dict) -> str:
    """A row of the table."""
    return (
        f"| {row['model']} | {row['policy']} | {row['engine']} | {row['images_per_second']:.1f} "
        f"| {row['ratio_to_ours']:.2f}x | {row['cosine']:.4f} |"
    )


if __name__ == "__main__":
    main()
