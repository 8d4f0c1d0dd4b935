"""The pages of reports: their parts, how they are written, and the contents over several."""
