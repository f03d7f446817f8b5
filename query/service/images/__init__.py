"""Images that clients send and images of the store: read and decoded in processes that may die."""
