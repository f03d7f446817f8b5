"""The named policies: YAML files, read by `pipeline.model.pruning.policy`."""
