"""Few-shot segmentation learned from unlabelled images: the mathematics, the models and the data formats.

Nothing in this package knows where it runs: it imports no ray, deepspeed, mlflow or torch.distributed, touches no
global random state and does nothing on import. `cluster` runs it on machines, `jobs` are the commands.

Words, one for each idea:

* *episode* (or *task*): one few-shot problem, a query image and K support images with masks of one class;
* *shard*: a tar file of samples, the unit of work;  *group*: shards that are paired together;
* *region*: the pixels of one label in one image;    *source*: what makes the pseudo-labels;
* *backbone*: the frozen feature extractor;          *head*: what is meta-trained on its features;
* *fold*, *shots*: as in the field. `255` in a mask is void: it never counts.
"""
