"""What the background did to a classifier: trainings and tests with and without it, as figures that hold.

cell      one training: backbone, training set, masking strategy, recipe, seed
predictions  what a model said of a test set, and predictions-ARM.parquet
figures   accuracies, differences and groups with their intervals, from predictions alone
results   trainings with their predictions, as the rows of tables
findings  the paper's four claims on data sets and backbones: holds, does not, too few runs
tables    CSV, LaTeX, HTML
plots     inline SVG
page      study.html
models    timm's classifiers, cut open where a strategy masks (imports torch)
masking   foreground cells, early masking, pooling (imports torch)
weights   files of weights, read without executing code
layers    where Grad-CAM looks at each family
gradcam   where a classifier looks: maps, input gradients, shares inside a mask (imports torch)
opened    a finished study, opened again with its run
gradcam_study  looks at the cells of a study, side by side; _look: which images, what is finished; _cell: one of them
          (imports torch); _values: a row for each image and arm; _figures, _tables: from these alone; _sheet: maps side
          by side; _report: the page; _estimate: what it takes (imports torch)
"""
