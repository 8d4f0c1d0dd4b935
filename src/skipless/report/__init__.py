"""Building blocks of reports: run records, tables, figures, curves, HTML pages and files, for any experiment."""
