"""Is a mangled payload what its manifest says?"""
