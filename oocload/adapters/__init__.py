"""Batches as frameworks take them. Thin: no order, shuffling or batching of their own."""
