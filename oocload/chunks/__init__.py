"""From byte ranges on disk to decoded rows in place. Runs in worker threads, mostly outside the GIL."""
