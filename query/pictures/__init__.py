"""Pictures for people to look at: contact sheets, kept patches, plots of recall against speed."""
