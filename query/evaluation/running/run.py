"""A run of a sweep: from a grid to raw files. What is there and still holds is kept; the rest is measured."""

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.metadata import version

from pipeline import __version__
from pipeline.measure.provenance import provenance
from pipeline.model.device import default_batch_size, device_name, pick_device, use_all_cores
from pipeline.model.precision import Candidate
from query.evaluation.data.open import open_data
from query.evaluation.grid.expand import Condition, adapted_twin
from query.evaluation.grid.read import Grid
from query.evaluation.raw.data import write_data
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.record import read_record, write_record
from query.evaluation.record import SweepRecord
