"""Open, read and list paths and URLs, with retries where they help."""
