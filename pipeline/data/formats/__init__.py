"""Files that hold several images, or whose pixels need more than Pillow: which images one holds, and their pixels.

`kinds` tells what a file is by its first bytes. `files` asks the reader of its kind: in pass one for the images that
it holds, from its header, and in pass two for the pixels of one of them. All other files are left to `data/images`.
"""
