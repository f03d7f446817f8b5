"""The vectors of queries, once for each text space.

Shapes: Q queries, T prompts, E embedding width.
"""

import hashlib
import json
import time
from collections.abc import Sequence

import numpy as np

from pipeline.monitor.progress import Tick
from query.evaluation.data.data_set import DataSet
from query.evaluation.running.galleries import Gallery
from query.evaluation.running.kept.blocks import Blocks, read_array, write_array
from query.evaluation.running.kept.work import Work, is_made_of, note_made_of
from query.evaluation.running.towers import Tower
from query.text import TextEncoder, text_encoder

KIND = "query vectors"
_BATCH = 256


def embed_texts(work: Work, towers: Sequence[Tower], galleries: Sequence[Gallery]) -> None:
    """Make the vectors of the queries of every gallery, in the text space of every condition that is measured on it."""
    firsts = {tower.encoder.text_space: tower for tower in reversed(towers)}
    for space, first in firsts.items():
        keys = {tower.key for tower in towers if tower.encoder.text_space == space}
        encoder: TextEncoder | None = None
        for gallery in galleries:
            if not keys & gallery.keys or _is_there(work, space, gallery):
                work.tally.kept[KIND] += len(gallery.data.titles) if keys & gallery.keys else 0
                continue
            encoder = encoder or text_encoder(first.encoder.spec)
            _embed(work, encoder, gallery)


def text_key(space: str) -> str:
    """Under which key the vectors of prompts are kept."""
    return f"texts-{space[:16]}"


def query_vectors(work: Work, space: str, data: DataSet) -> np.ndarray:
    """The vectors of the queries of a data set in a text space, float32 [Q, E].

    Raises:
        StoreError: If their file is missing or damaged.
    """
    return read_array(work.folder.texts(space, data.name), len(data.titles))


def _embed(work: Work, encoder: TextEncoder, gallery: Gallery) -> None:
    data, space = gallery.data, encoder.text_space
    prompts = list(dict.fromkeys(text for texts in data.prompts for text in texts))
    # the gallery with distractors has the same queries, and finds these blocks
    blocks = Blocks(work.folder.vectors(text_key(space), gallery.parts[0].name), len(prompts))
    blocks.prepare(_made_of(work, space, [prompts]))
    started = time.perf_counter()
    for number in blocks.missing():
        blocks.write(number, encoder.encode_texts(prompts[blocks.rows(number)], _BATCH))
        num_done = blocks.rows(number).stop
        rate = num_done / (time.perf_counter() - started)
        work.on_tick("texts", Tick(num_done, len(prompts), 0, rate, is_of_images=False))
    vectors_TE, place = blocks.read(), {text: number for number, text in enumerate(prompts)}
    path = work.folder.texts(space, data.name)
    write_array(path, np.stack([_unit_mean(vectors_TE[[place[text] for text in texts]]) for texts in data.prompts]))
    note_made_of(path.parent, path.name, _made_of(work, space, data.prompts))
    work.tally.measured[KIND] += len(data.titles)


def _is_there(work: Work, space: str, gallery: Gallery) -> bool:
    path = work.folder.texts(space, gallery.data.name)
    return path.exists() and is_made_of(path.parent, path.name, _made_of(work, space, gallery.data.prompts))


def _made_of(work: Work, space: str, prompts: Sequence[Sequence[str]]) -> dict[str, str]:
    text = json.dumps([list(texts) for texts in prompts])
    hashed = hashlib.sha256(text.encode()).hexdigest()
    return {"text_space": space, "prompts_sha256": hashed, "environment_key": work.environment_key}


def _unit_mean(vectors_TE: np.ndarray) -> np.ndarray:
    if len(vectors_TE) == 1:
        return vectors_TE[0]
    mean_E = vectors_TE.mean(axis=0)
    return mean_E / np.maximum(np.linalg.norm(mean_E), np.float32(1e-12))
