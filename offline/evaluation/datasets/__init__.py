"""The data sets of the field: VQAv2, COCO, POPE, MM-SafetyBench."""
