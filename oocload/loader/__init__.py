"""From a plan to batches: slabs, worker threads, the memory budget, and the loader that users hold."""
