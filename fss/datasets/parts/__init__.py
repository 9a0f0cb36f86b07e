"""What data sets share: files, and the layouts of COCO and PASCAL VOC."""
