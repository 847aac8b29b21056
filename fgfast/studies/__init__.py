"""What the background did to a classifier: trainings and tests with and without it, as figures that hold.

cell      one training: backbone, training set, masking strategy, recipe, seed
figures   accuracies, differences and groups with their intervals, from predictions alone
"""
