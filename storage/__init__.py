"""Where bytes live and come from: SQL, vectors, files, providers, the queue, settings."""
