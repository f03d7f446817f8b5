"""The typed settings tree: from flags, environment and YAML to one frozen model per verb."""
