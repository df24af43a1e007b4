"""Accuracy of predictors: generated scenes and the scores of masks."""
