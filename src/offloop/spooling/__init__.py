"""Records on disk: files of one owner in a directory that processes share, and what is done about broken ones."""
