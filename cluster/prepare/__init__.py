"""Class masks that a labelled data set lacks."""
