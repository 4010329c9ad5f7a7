"""The steps of an upload, in files that can be read beside Xen's."""
