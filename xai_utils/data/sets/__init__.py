"""One file a data set; `xai_utils.data.load` finds `load_<name>` in the file of that name."""
