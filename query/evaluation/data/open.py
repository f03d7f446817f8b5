"""Open a data set as a grid names it. Lists images and reads captions; decodes nothing."""

from pathlib import Path

from pipeline.errors import ClipsieveError, ConfigError
from query.evaluation.data.captions import draw_scenes, read_folder
from query.evaluation.data.class_folders import read_class_folders
from query.evaluation.data.data_set import DataSet
from query.evaluation.data.found import Captioned, Classified
from query.evaluation.data.gallery import counted, sampled, with_distractors
from query.evaluation.data.grades import read_grades
from query.evaluation.data.queries import of_captions, of_classes, of_judgements
from query.evaluation.data.store import read_store
from query.evaluation.data.webdataset import read_webdataset
from query.evaluation.grid.keys import DataKeys


def open_data(keys: DataKeys, folder_for_scenes: Path) -> DataSet:
    """Open a data set.

    The rule of the first captions: of each image, the first `captions_per_image` captions (5 by default, in the order
    of the source) are queries, because published numbers on COCO and Flickr30k count five for each image. The others
    are counted as `num_left_out`. With `grades`, the queries are instead the captions of that file.

    Images are in the order of their keys, queries in the order of their images, so that the same split has the same
    hash from any file format; see `DataSet.sha256`.

    Args:
        keys: The data set, as in the grid.
        folder_for_scenes: Where drawn scenes go.

    Raises:
        ConfigError: If a key does not go with what the source holds.
        InputError: If images or captions are missing, do not match, or cannot be read.
        StoreError: If a store cannot be used.
    """
    try:
        data = _with_queries(keys, _found(keys, folder_for_scenes))
        if keys.num_images:
            data = sampled(data, keys.num_images, keys.seed)
        return counted(with_distractors(data, keys.distractors))
    except ClipsieveError as error:
        raise type(error)(f"data set {keys.name!r}: {error}") from error


def _found(keys: DataKeys, folder_for_scenes: Path) -> Captioned | Classified:
    if keys.scenes:
        return draw_scenes(keys.scenes, keys.split, folder_for_scenes)
    if keys.classes:
        return read_class_folders(keys.classes, keys.templates)
    if keys.webdataset:
        return read_webdataset(keys.webdataset, keys.split, keys.templates)
    if keys.store:
        return read_store(keys.store, keys.captions, keys.split)
    return read_folder(keys.images, keys.captions, keys.split)


def _with_queries(keys: DataKeys, found: Captioned | Classified) -> DataSet:
    if isinstance(found, Classified):
        if keys.grades:
            raise ConfigError("the key grades goes with captions, but this webdataset has classes; remove it")
        return of_classes(keys.name, found)
    if keys.templates:
        raise ConfigError("the key templates goes with classes, but this webdataset has captions; remove it")
    if keys.grades:
        return of_judgements(keys.name, found, read_grades(keys.grades, found.entries))
    return of_captions(keys.name, found, keys.captions_per_image)
