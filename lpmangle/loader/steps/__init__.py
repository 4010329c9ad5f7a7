"""The steps of an upload, in modules to be read beside Xen's source."""
