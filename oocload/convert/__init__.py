"""From anything that holds arrays to a chunked store on disk."""
