"""Further data sets from the masks of a finished run: backgrounds, Waterbirds, contours, statistics, parts and more.

kind     what a kind of expansion is: it plans for the whole run, and makes the products of one subject at a time
seeds    random numbers that depend on the seed, the kind and the sample, and on nothing else
kinds/   the kinds
"""
