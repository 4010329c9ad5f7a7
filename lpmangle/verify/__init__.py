"""Does a mangled payload hold what it promises?"""
