"""The analysis plan: its record, its run, its sensitivity grids and flows of participants."""
