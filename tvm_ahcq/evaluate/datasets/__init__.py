"""Data sets: COCO files, mask folders, generated scenes."""
