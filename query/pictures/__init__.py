"""Pictures for people to look at: contact sheets, kept patches, recall against speed."""
