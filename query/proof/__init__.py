"""The texts that tune and prove an index: built-in ones or the user's, embedded by the store's text tower."""
