"""Write a model as a directory that open_clip loads by `local-dir:`, with no code of ours."""

import shutil
import uuid
from pathlib import Path

from open_clip.push_to_hf_hub import save_config_for_hf
from safetensors.torch import save as to_safetensors

from pipeline.errors import InputError, StoreError
from pipeline.model.load import LoadedModel


def export_checkpoint(loaded: LoadedModel, folder: Path) -> None:
    """Write weights and configuration; an adapter has been merged into them, a policy is no part of them.

    Args:
        loaded: The model, in float32.
        folder: To be made; it appears whole or not at all.

    Raises:
        InputError: If the folder is there and not empty.
        StoreError: If the file system refuses.
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
            f"cannot write {folder}: {error.strerror or error}; free space or choose another place"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_used(folder: Path) -> None:
    """Refuse to write over something, before the work is done.

    Raises:
        InputError: If the folder is there and not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--export {folder} is there already; choose another")
