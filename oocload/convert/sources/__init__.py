"""Where rows come from. Each source is one small class, streamed, never read whole.

A `RowSource` is what a conversion reads: batches, or several `FieldSource` side by side, each read ahead by threads.
"""
