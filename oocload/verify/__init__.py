"""The proof of a store: its stored bytes against the checksums in its manifest; nothing is decoded."""
