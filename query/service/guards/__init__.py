"""Who may ask, and how much: checks around all routes, as plain ASGI applications."""
