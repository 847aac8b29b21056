"""A data set becomes its foreground-only twin. The path of one image, file by file:

plan              data set, selection, methods and names, before anything is written
run               the whole course of a run, from top to bottom
workers           worker processes on devices, or this process
job               settings -> stages on one device: the job that a worker process opens
work              one sample in flight, and its result
stages            the stages that process one image: decode, detect, mask, cut, write
batched_stages    the stages that process a batch of images: decode, detect, encode
annotated         the stage in place of detect and mask where the masks exist already, and where they come from
judging           the stage that makes one doubt of all numbers of a result
prompt            the choice of the box that prompts the segmenter

Beside that path: `choices` (methods, devices and backend), `annotated` (masks that exist already), `exclusion` (lists
of samples to leave out), `resume` (what an output already holds), `finish` (the files about the whole twin), `flagging`
(which results are flagged), `verify` (the check of an output), `placement` (the work of each device, and its workers),
`host_time` (how long a worker holds Python's lock), `decoder_choice` (the fastest decoder with correct pixels), `rate`
(the speed to expect), `cutter` and `single` (images without a data set), `mending` (what people decide about samples is
carried out), with `changes` (what they ask for, checked), `reopened` (the plan of the run that is there), `remake`
(what follows from decisions) and `mended` (the files and rows); `decided` (what they decided holds again in every run).
"""
