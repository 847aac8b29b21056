"""Further data sets from the masks of a finished run: backgrounds, Waterbirds, contours, statistics, parts and more.

kind        what a kind of expansion is: it plans for the whole run, and makes the products of one subject at a time
kinds/      the kinds
table       the table of kinds
seeds       random numbers that depend on the seed, the kind and the sample, and on nothing else
run_source  the run that an expansion is made from
names       the names of all files
options     the options of a kind
plan        the plan of an expansion
job         what a worker process does
run         an expansion from its plan to its report
expected    what a plan expects of its output
finish      the files about the whole
tables      rows in the ledger, Parquet files at the end
"""
