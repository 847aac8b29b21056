"""A data set becomes its foreground-only twin. One image's way, file by file:

plan              the data set, the selection, the methods and the names, before anything is done
run               the whole course of a run, from top to bottom
workers           worker processes on devices, or this process
job               settings to stages on one device: what a worker process opens
work              one sample on its way, and the result that is kept of it
stages            what is done to one image: decode, detect, mask, cut, write
batched_stages    what is done to a batch of images: decode, detect, encode
prompt            which of the boxes found prompts the segmenter

Beside the way: `choices` (which methods, devices and backend), `placement` (which device does what), `decoder_choice`
(which decoder is right and fastest here), `single` (one image without a data set).
"""
