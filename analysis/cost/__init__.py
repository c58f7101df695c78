"""Hours and money of runs, the comparability of their clocks, and the cost of tuning."""
