"""Statistics: crossings, savings with intervals, stability and its boundary, correlations."""
