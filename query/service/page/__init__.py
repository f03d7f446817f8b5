"""The page: templates, a style sheet and modules, as files; and what fills them in."""
