"""Zero-shot tasks: their data sets in local files or on the hub, scored by the evaluation harness (`lm-eval`)."""
