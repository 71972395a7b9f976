"""Where rows come from. Each source is one small class, streamed, never read whole.

An `ArraySource` is one array; a `RowSource` is what a conversion reads: several of them side by side, or batches.
"""
