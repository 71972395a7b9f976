"""What the values of a store are like: moments, ranges, labels; one parallel pass under a memory ceiling."""
