"""The heads of the raw files of a sweep, as its record says they must be: writers and readers take them from here."""

from typing import Literal

from query.evaluation.raw.head import RawHead
from query.evaluation.record import ConditionRecord, DataRecord, SweepRecord


def head_of(
    record: SweepRecord,
    condition: ConditionRecord,
    data: DataRecord,
    kind: Literal["ranks", "images"],
    against: ConditionRecord | None = None,
) -> RawHead:
    """The head of a file of one condition on one data set: everything that its values depend on.

    Args:
        record: Of the sweep.
        condition: The condition.
        data: The data set.
        kind: What the file holds.
        against: What cosines are to; by default, the baseline.
    """
    settings = {"images_sha256": data.images_sha256, "baseline": (against or record.baseline).fingerprint}
    if kind == "ranks":
        settings |= {"epsilon": record.grid["epsilon"], "duplicate_cosine": record.duplicate_cosine}
    if condition.index:
        settings |= {"index": condition.index.model_dump(mode="json", exclude={"num_bytes"})}
    return RawHead(
        kind=kind,
        condition=condition.key,
        fingerprint=condition.fingerprint,
        data=data.name,
        data_sha256=data.sha256,
        environment_key=record.environment_key,
        settings=settings,
    )
