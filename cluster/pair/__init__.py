"""Stage pair: few-shot tasks from regions."""
