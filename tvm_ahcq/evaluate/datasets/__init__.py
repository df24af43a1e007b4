"""Data sets: COCO files, mask folders, videos with masks, generated scenes and clips."""
