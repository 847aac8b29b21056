"""What the background did to a classifier: trainings and tests with and without it, as figures that hold.

Those marked * import torch: they are imported where a model is at hand, and nowhere else.

What is shown
  pairs         images with masks and classes, of a run or in memory
  splits        which samples train, validate, test
  arms          what of a sample is shown: x, x_fg, mixed, only-bg, x-box
  transforms *  from a stored image and its mask to a model's input
  loading *     batches
What is trained
  cell          one training: backbone, training set, masking strategy, recipe, seed
  recipes       how is trained, as data with its source; papers.json has the papers' figures
  models *      timm's classifiers, cut open where a strategy masks; masking *, layers, weights belong to them
  loop *        the training loop; checkpoint * keeps it
  predict *     what a trained model says of a test set
How it is carried out
  request       what a person asks, and the grid that it makes
  grid          the cells of a study, and its folder
  one_cell *    trains a cell and tests it
  job, run      a cell as an item of a worker; cells side by side
  estimate *    what it will take
  opened        a finished study, opened again with its run; trained_backbone * takes one of its models
What is said
  predictions   what a model said of a test set, and its table
  figures       accuracies, differences and groups with their intervals, from predictions alone
  results       trainings with their predictions, as rows of tables
  findings      the paper's claims on data sets and backbones: holds, does not, too few runs
  tables, plots, verdicts, page, kept_tables, stored, report
Studies
  crossval, masking_study, waterbirds, features*, feature_*, gradcam*

torchvision_shim lets torchvision's wheel be imported beside a CPU build of torch.
"""
