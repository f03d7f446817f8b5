"""The named policies, as YAML files read by `pipeline.model.pruning.policy`."""
