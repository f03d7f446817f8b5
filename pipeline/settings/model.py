"""Settings of the model and its pruning policies, shared by several verbs."""

from typing import ClassVar

from pydantic import AliasChoices, Field, model_validator

from pipeline.model.pruning.policy import UNPRUNED, PruningPolicy, choose_policy
from pipeline.model.spec import EMBEDDED, ModelSource
from pipeline.settings.load import Settings


class ModelSettings(Settings):
    """Which model: shared by every verb that loads one."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("model", "pretrained", "random_weights", "image_size"),
        "how good": ("adapter",),
    }

    model: str = EMBEDDED
    """Model to load: an open_clip name, hf-hub:ORG/NAME, local-dir:PATH, or the built-in model `scenes`."""

    pretrained: str | None = None
    """Pretrained tag or checkpoint file. An open_clip name needs one."""

    random_weights: bool = False
    """Use random weights, to measure speed only."""

    image_size: int | None = Field(default=None, ge=1)
    """Side of the image tower's input in pixels. By default, the model's own; for any other, position
    embeddings are interpolated."""

    adapter: str | None = None
    """Adapter to merge into the weights: a directory, or `scenes` for the built-in one."""

    def model_source(self) -> ModelSource:
        """The model and adapter that these settings name, with absolute paths."""
        source = ModelSource(**{name: getattr(self, name) for name in ModelSource.model_fields if hasattr(self, name)})
        return source.absolute()  # here, because a worker may have another working directory

    def any_weights(self) -> ModelSource:
        """`model_source`, with random weights for a name without a tag: for results that do not depend on weights."""
        needs_none = not self.pretrained and ":" not in self.model and self.model != EMBEDDED
        return self.model_source().model_copy(update={"random_weights": self.random_weights or needs_none})


class PolicySettings(ModelSettings):
    """How the model's image tower is made cheaper: shared by every verb that prunes with one policy."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"how good": ("policy", "keep_ratio", "gmac_ratio")}

    policy: str | None = None
    """Pruning policy: a name or FILE.yaml. `none` is the unpruned model. By default, `balanced`."""

    keep_ratio: float | None = Field(default=None, gt=0.0, le=1.0)
    """Keep this share of the patch tokens, above 0 and up to 1, with the reference policy."""

    gmac_ratio: float | None = Field(default=None, gt=1.0)
    """Sharpen the policy until the image tower needs this many times fewer multiply-adds than the unpruned one."""

    def pruning_policy(self) -> PruningPolicy | None:
        """The policy these settings name; None for the unpruned tower."""
        return choose_policy(self.policy, self.keep_ratio, self.gmac_ratio)

    @property
    def policy_is_default(self) -> bool:
        """Whether no policy was asked for, so that a tower that cannot be pruned may run unpruned."""
        return self.policy is None and self.keep_ratio is None and self.gmac_ratio is None


class PoliciesSettings(PolicySettings):
    """Policies to compare with the unpruned model: shared by the verbs that measure several."""

    policy: str | None = Field(default=None, validation_alias=AliasChoices("policy", "policies"))
    """Pruning policies to compare with the unpruned model, separated by commas. By default, `balanced`."""

    @model_validator(mode="after")
    def _check_policies(self) -> "PoliciesSettings":
        self.pruning_policies()
        return self

    @property
    def asks_unpruned(self) -> bool:
        """Whether `none` is named among the policies."""
        return UNPRUNED in self._names()

    def pruning_policies(self) -> dict[str | None, PruningPolicy]:
        """The policies to compare with the unpruned tower, by their `--policy` value (None: the default)."""
        asked = [name for name in self._names() if name != UNPRUNED]
        policies = {name: choose_policy(name, self.keep_ratio, self.gmac_ratio) for name in asked}
        names = [policy.name for policy in policies.values()]
        if len({name.lower() for name in names}) < len(names):  # stores are named after them, on any file system
            raise ValueError(f"policy = {self.policy!r}: two policies share a name ({', '.join(names)}); rename one")
        return policies

    def _names(self) -> list[str | None]:
        return [name.strip() for name in self.policy.split(",")] if self.policy else [None]
