"""The proof of a store: its stored bytes against the checksums in its manifest, and its rows against a source."""
