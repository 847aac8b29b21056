"""Errors found by themselves, mended in a browser: the server of `fgfast review`, and what mending was worth.

server      listens, opens the browser, ends cleanly
security    who may speak with the server; headers of every answer
app         the requests and their answers
session     one output under review: threads for reading, writing and drawing
opening     how the parts of a real run are opened
one_writer  the one thread that decides
reading     what is read of a run, in one thread
requests    what is in a request, checked
deciding    decisions, from a request to its answer
clicks      boxes, points and strokes, from a request to masks
preparing   what the model looks at before anybody clicks
entries     what is listed, sorted and filtered, as columns in memory
items       one entry as the page gets it
entry_images  the images of one entry: read, drawn and kept
images      images for the page: decoded by fgfast, drawn, encoded again
mask_runs   masks as run lengths
refining    grow, shrink, fill holes, keep the largest part
quality     a run's masks against official ones, before and after review
segmenting  boxes, points and strokes to masks, by the model of the run
embeddings  what SAM saw in images, kept for clicks and made ahead of them
segmenter_process  the processes in which the models work
outliers    results that are unlike those of their own class
flag_index  the flags of all entries, looked up beside everything else
queue       the doubtful results of a run, in order, with their flags
"""
