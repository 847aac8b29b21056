"""The pieces of the kind `parts`.

shown      rows, crops and the overview of parts, however they were found
annotated  parts that the data set names
features   features of an image's cells: colour, or DINOv2
fitting    centres of clusters, fitted by every worker on the same images
clustered  parts by k-means
measuring  how far such parts are from annotated ones, on the image and on its foreground
"""
