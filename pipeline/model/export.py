"""Write a model as a directory that open_clip loads as `local-dir:`, without any clipsieve code."""

import shutil
import uuid
from pathlib import Path

from open_clip.push_to_hf_hub import save_config_for_hf
from safetensors.torch import save as to_safetensors

from pipeline.errors import InputError, StoreError
from pipeline.model.load import LoadedModel


def export_checkpoint(loaded: LoadedModel, folder: Path) -> None:
    """Write weights and configuration, with the adapter merged in; the pruning policy is not included.

    Args:
        loaded: The model, in float32.
        folder: Directory to create; it appears complete or not at all.

    Raises:
        InputError: If the folder exists and is not empty.
        StoreError: If the files cannot be written.
    """
    folder = folder.absolute()
    refuse_used(folder)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        state = {name: tensor.detach().contiguous() for name, tensor in loaded.clip.state_dict().items()}
        (temporary / "open_clip_model.safetensors").write_bytes(to_safetensors(state))
        save_config_for_hf(loaded.clip, temporary / "open_clip_config.json", loaded.spec.architecture)
        temporary.replace(folder)
    except OSError as error:
        raise StoreError(
            f"cannot write {folder}: {error.strerror or error}; free up space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_used(folder: Path) -> None:
    """Refuse to overwrite a folder, before any work is done.

    Raises:
        InputError: If the folder exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--export {folder} already exists and is not empty; choose another folder")
