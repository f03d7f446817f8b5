"""Pictures for people: contact sheets, kept patches, recall against speed."""
